//! The parameters of a command that names tags.

use std::time::Duration;

use prefetch::image::TaggedImage;

use super::value::{execution_timeout, references};

/// Bounds the tags of one command; the report of so many is within what SSM returns of a command's output.
pub const MAX_TAGS: usize = 10;

/// The parameters of one command for tags, all of them usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagParameters {
    /// From 1 to 10 images, in the order in which they were named; an image may be named twice.
    pub tags: Vec<TaggedImage>,
    /// The seconds after which SSM kills the command.
    pub execution_timeout: Duration,
}

impl TagParameters {
    /// Reads the parameters by a look-up from a variable's name (`SSM_tags`) to its value; none where the command names no
    /// tags. The error is the first that cannot be used, in words for people.
    pub fn read(look_up: impl Fn(&str) -> Option<String>) -> Option<Result<Self, String>> {
        let list = look_up("SSM_tags")?;
        if look_up("SSM_images").is_some() {
            return Some(Err("images and tags are named by documents of their own".to_owned()));
        }
        let seconds = look_up("SSM_executionTimeout").unwrap_or_default();
        Some(Self::usable(&list, &seconds))
    }

    fn usable(list: &str, seconds: &str) -> Result<Self, String> {
        let tag = |text: &str| text.parse().ok();
        Ok(Self {
            execution_timeout: execution_timeout(seconds)?,
            tags: references("tags", list, MAX_TAGS, "registry/repository:tag", tag)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAG: &str = "docker.io/library/nginx:1.27";

    fn read(tags: &str) -> Result<TagParameters, String> {
        TagParameters::read(|name| match name {
            "SSM_tags" => Some(tags.to_owned()),
            "SSM_executionTimeout" => Some("60".to_owned()),
            _ => None,
        })
        .unwrap()
    }

    #[test]
    fn tags_are_read_in_their_order() {
        let parameters = read(&format!("registry.example:5000/team/app:v1 {TAG} {TAG}")).unwrap();
        let names: Vec<_> = parameters.tags.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["registry.example:5000/team/app:v1", TAG, TAG]);
        assert_eq!(parameters.execution_timeout.as_secs(), 60);
    }

    #[test]
    fn a_command_without_tags_is_another_ones() {
        assert_eq!(TagParameters::read(|_| None), None);
        assert_eq!(
            TagParameters::read(|name| (name == "SSM_images").then(String::new)),
            None
        );
    }

    #[test]
    fn what_cannot_be_used_is_told_on_one_short_line() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (tags, words) in [
            (String::new(), "no list of references"),
            (" ".to_owned(), "no list of references"),
            (format!("{TAG} "), "no list of references"),
            (format!("{TAG}  {TAG}"), "no list of references"),
            (format!("{TAG};id"), "no list of references"),
            (format!("{TAG}\n"), "no list of references"),
            ("nginx:1.27".to_owned(), "not registry/repository:tag"),
            ("library/nginx:1.27".to_owned(), "not registry/repository:tag"),
            ("docker.io/library/nginx".to_owned(), "not registry/repository:tag"),
            (format!("{TAG}@{digest}"), "not registry/repository:tag"),
            (format!("docker.io/nginx@{digest}"), "not registry/repository:tag"),
            ([TAG; 11].join(" "), "more than 10"),
            ("a".repeat(10_000), "longer than 10 references"),
        ] {
            let refusal = read(&tags).unwrap_err();
            assert!(refusal.contains(words) && refusal.len() < 480, "{tags}: {refusal}");
        }
    }

    #[test]
    fn a_command_names_images_or_tags_and_has_an_end() {
        let both = TagParameters::read(|_| Some(TAG.to_owned())).unwrap();
        assert!(both.unwrap_err().contains("documents of their own"));
        let endless = TagParameters::read(|name| (name == "SSM_tags").then(|| TAG.to_owned())).unwrap();
        assert!(endless.unwrap_err().starts_with("executionTimeout is no whole number"));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_free_of_everything_a_shell_reads(
            tags in "([a-z]{1,3}\\.[a-z]{2}/[a-z/]{1,8}:.{0,8} ?){0,3}|\\PC{0,100}",
        ) {
            match read(&tags) {
                Ok(parameters) => {
                    prop_assert!(tags.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/: ".contains(&b)));
                    let names: Vec<_> = parameters.tags.iter().map(ToString::to_string).collect();
                    prop_assert_eq!(names.join(" "), tags);
                }
                Err(refusal) => prop_assert!(refusal.len() < 480 && !refusal.contains('\n')),
            }
        }
    }
}
