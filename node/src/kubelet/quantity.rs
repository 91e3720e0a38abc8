//! Thresholds of `evictionHard` and `evictionSoft`: a percentage, or a quantity of Kubernetes'.

/// Bounds what has to be left: so much, or so large a part, whichever is more. None by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Threshold {
    /// A part of all, 0 to 1; kubelet has it in single precision.
    part: f32,
    /// A number of bytes, or inodes.
    quantity: u64,
}

impl Threshold {
    /// Reads a threshold, such as `15%` or `2Gi`. Kubelet ignores `0%` and `100%`, and does not start with what is neither.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.strip_suffix('%') {
            Some(_) if ["0%", "100%"].contains(&text) => Self::default(),
            Some(percent) => match percent.parse::<f32>() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => Self {
                    part: percent / 100.0,
                    quantity: 0,
                },
                _ => Self::default(),
            },
            None => Self {
                part: 0.0,
                quantity: quantity(text).unwrap_or(0),
            },
        }
    }

    /// Returns both, whichever is more.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        Self {
            part: self.part.max(other.part),
            quantity: self.quantity.max(other.quantity),
        }
    }

    /// Returns how much has to be left of all that there is: kubelet acts on less.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )] // as kubelet counts, rounded up
    pub fn of(self, all: u64) -> u64 {
        let part = (all as f64 * f64::from(self.part)).ceil() as u64;
        part.max(self.quantity)
    }
}

/// Reads a quantity: a number with `Ki`, `M`, `e3` or the like behind it; rounded up.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // casts from floating point end at the largest
fn quantity(text: &str) -> Option<u64> {
    let end = text
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "" => 1.0,
        "Ki" => 1024_f64,
        "Mi" => 1024_f64.powi(2),
        "Gi" => 1024_f64.powi(3),
        "Ti" => 1024_f64.powi(4),
        "Pi" => 1024_f64.powi(5),
        "Ei" => 1024_f64.powi(6),
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        _ => 10_f64.powi(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some((number * factor).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn thresholds_are_read_as_kubelet_reads_them() {
        for (text, all, left) in [
            ("15%", 1000, 151), // single precision: a little above 0.15
            ("5%", 6_553_600, 327_681),
            ("12.5%", 1000, 125),
            ("0%", 1000, 0),
            ("100%", 1000, 0),
            ("101%", 1000, 0),
            ("100Mi", 1000, 100 << 20),
            ("2Gi", 0, 2 << 30),
            ("1.5Gi", 0, 3 << 29),
            ("10G", 0, 10_000_000_000),
            ("1e3", 0, 1000),
            ("128974848", 0, 128_974_848),
            ("100m", 0, 1),
            ("much", 1000, 0),
            ("", 1000, 0),
            ("1e999999999", 0, u64::MAX),
        ] {
            assert_eq!(Threshold::parse(text).of(all), left, "{text}");
        }
    }

    #[test]
    fn of_two_thresholds_the_one_counts_that_leaves_more() {
        let both = Threshold::parse("10%").stricter(Threshold::parse("500"));
        assert_eq!((both.of(1000), both.of(10_000)), (500, 1001));
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(text in "[0-9.]{0,12}([%a-zA-Z]{0,3}|[eE]-?[0-9]{0,4})", all in any::<u64>()) {
            let threshold = Threshold::parse(&text);
            prop_assert!(threshold.of(all / 2) <= threshold.of(all));
        }

        #[test]
        fn no_less_is_left_than_kubelet_wants(percent in 0_u8..=100, all in 0_u64..1 << 50) {
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let kubelets = (all as f64 * f64::from(f32::from(percent) / 100.0)) as u64;
            let left = Threshold::parse(&format!("{percent}%")).of(all);
            prop_assert!(left >= kubelets || percent == 100);
        }
    }
}
