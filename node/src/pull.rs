//! One image: its attempts, what goes on while it is pulled, and what is left behind where it fails.

pub mod begun;
pub mod download;
pub mod progress;
pub mod reason;
mod retry;
pub mod room;
pub mod slot;
mod watch;

use std::{fs::File, time::Duration};

use prefetch::{
    manifest::Configuration,
    outcome::{NodeReason, Status},
};
use tokio::time::Instant;

use self::{
    begun::Begun,
    room::{Answer as RoomAnswer, Size},
};
use crate::{
    command::{
        Command,
        work::{Attempts, Come, State, Work},
    },
    containerd::inventory::{Inventory, confirm},
    description::{Description, Fit},
    failure::Failure,
    keep::Age,
    login::{Answer, Login},
    naming::{self, Before, Tag},
    registry::Kind,
};

/// How often an image is tried.
const MAX_ATTEMPTS: u32 = 4;
/// After how long CRI knows a name that others have made (seen: 0.3 s).
const CRI_NOTICES_WITHIN: Duration = Duration::from_millis(500);
/// How often an image that waits for room looks for it.
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_millis(500);

/// Tries to bring an image, and reports what became of it.
pub async fn prefetch(command: &Command<'_>, work: &Work) {
    let mut pull = Pull::of(command, work);
    let ended = pull.bring_with_attempts().await;
    command.release(work);
    let ended = match ended {
        Err(failure) if pull.may_have_come(&failure) => pull.look_whether_it_came().await.ok_or(failure),
        ended => ended,
    };
    match ended {
        Ok(come) => {
            work.set(State::Come(come));
            pull.ballast = None;
            command.see(work, come).await;
        }
        Err(failure) => {
            let has_begun = pull.attempts().is_some_and(|attempts| attempts.count > 0);
            command.report_failure(work, &failure, pull.bytes());
            pull.ballast = None;
            if has_begun {
                if !failure.reason.is_retryable() {
                    pull.forget_layers().await;
                }
                command.clean_up(work, failure.reason).await;
            }
        }
    }
}

/// An image that is being brought.
struct Pull<'a> {
    command: &'a Command<'a>,
    work: &'a Work,
    /// A login of its own, where the one that it shares with others was refused.
    login: Option<Answer>,
    is_login_renewed: bool,
    description: Option<Description>,
    /// Whether it was there, but for a name, when the last attempt began.
    was_there: bool,
    status: Status,
    ballast: Option<File>,
    begun: Option<Begun>,
}

impl<'a> Pull<'a> {
    fn of(command: &'a Command<'a>, work: &'a Work) -> Self {
        Self {
            command,
            work,
            login: None,
            is_login_renewed: false,
            description: None,
            was_there: false,
            status: Status::Cached,
            ballast: None,
            begun: None,
        }
    }

    async fn bring_with_attempts(&mut self) -> Result<Come, Failure> {
        let mut attempt = 1;
        loop {
            let failure = match self.bring(attempt).await {
                Ok(come) => return Ok(come),
                Err(failure) => failure,
            };
            self.command.release(self.work);
            if self.attempts().is_none_or(|attempts| attempts.count < attempt) {
                return Err(failure); // the time was over before this attempt began
            }
            let Command { speech, .. } = self.command;
            speech.tell_failure(&self.work.talk, &self.work.image, attempt, &failure);
            let is_last = attempt == MAX_ATTEMPTS || !self.may_pass(&failure).await;
            if is_last || !self.back_off(attempt).await {
                return Err(failure);
            }
            attempt += 1;
        }
    }

    /// Makes one attempt. Others have their turn while it is only named.
    async fn bring(&mut self, attempt: u32) -> Result<Come, Failure> {
        let Command { context, .. } = self.command;
        self.command.occupy(self.work);
        let slot = slot::take(self.command, self.work).await?;
        if context.time.is_over() {
            return Err(Failure::new(NodeReason::Timeout, "the time for the command is over"));
        }
        self.begin(attempt);
        let inventory = if attempt == 1 && !self.command.has_pulled(self.work) {
            context.fresh_inventory().await?
        } else {
            context.inventory(Instant::now()).await?
        };
        self.remember_names(&inventory);
        self.was_there = self.is_there(&inventory).await?;
        if !self.was_there {
            self.fetch(&inventory, attempt).await?;
        }
        drop(slot);
        self.command.settle(self.work);
        self.name(&inventory).await
    }

    /// Tells whether an image is there but for a name. Where CRI does not find what seems to be there, it may only have been
    /// named a moment ago.
    async fn is_there(&self, inventory: &Inventory) -> Result<bool, Failure> {
        let (context, image) = (self.command.context, &self.work.image);
        let is_here = inventory.has_content(image);
        if !is_here || !self.work.is_doubtful.get() {
            return Ok(is_here);
        }
        tokio::time::sleep(CRI_NOTICES_WITHIN).await;
        let is_found = context
            .time
            .until_deadline(confirm(&context.containerd, image))
            .await??;
        self.work.is_doubtful.set(!is_found);
        Ok(is_found)
    }

    async fn fetch(&mut self, inventory: &Inventory, attempt: u32) -> Result<(), Failure> {
        let Command {
            context, parameters, ..
        } = self.command;
        if inventory.is_snapshotter_missing {
            let detail = format!("containerd is set to use {}, which does not run", inventory.snapshotter);
            return Err(Failure::new(NodeReason::Snapshotter, detail));
        }
        if let Age::NotBrought = self.command.age() {
            return Err(Failure::new(
                NodeReason::Policy,
                Age::NotBrought.words().unwrap_or_default(),
            ));
        }
        let login = self.login().await;
        let description = self.describe(attempt, login.as_ref()).await?;
        refuse_foreign(&description)?;
        self.find_room(&description, inventory, login.as_ref()).await?;
        if parameters.report_only {
            let detail = format!("would pull {} bytes", description.bytes());
            return Err(Failure::new(NodeReason::ReportOnly, detail));
        }
        self.ballast = self.command.room().await.ballast(size_of(&description));
        self.begun = None; // its file would go with it
        self.begun = Begun::note(&context.host, &self.work.image).ok(); // else, killed, it is nobody's
        watch::pull(
            self.command,
            self.work,
            &description,
            attempt,
            login.as_ref(),
            inventory,
            self.begun.as_ref(),
        )
        .await?;
        self.forget_layers().await;
        if description.fit != Fit::Own
            && let Ok(held) = context.describe_held(&self.work.image).await
        {
            refuse_foreign(&held)?;
            self.description = Some(held);
        }
        self.status = Status::Pulled;
        self.work.is_doubtful.set(false);
        Ok(())
    }

    /// Describes the image; where the registry does not say, the pull will.
    async fn describe(&mut self, attempt: u32, login: Option<&Login>) -> Result<Description, Failure> {
        let Command {
            context, parameters, ..
        } = self.command;
        if self.description.is_none() {
            let described = if attempt == 1 {
                self.command.description_of(self.work).await
            } else {
                context.describe(&self.work.image, login).await
            };
            match described {
                Ok(description) => self.description = Some(description),
                Err(failure) if parameters.report_only => return Err(failure),
                Err(_) => {}
            }
        }
        Ok(self.description.clone().unwrap_or(Description {
            fit: Fit::Unknown,
            content: None,
        }))
    }

    /// Reserves room, and waits for it where only images beside this one are in the way.
    async fn find_room(
        &self,
        description: &Description,
        inventory: &Inventory,
        login: Option<&Login>,
    ) -> Result<(), Failure> {
        let Command {
            context, parameters, ..
        } = self.command;
        if let Some(limit) = parameters.max_image_bytes.filter(|limit| description.bytes() > *limit) {
            let detail = format!("{} bytes, more than {} GiB", description.bytes(), limit >> 30);
            return Err(Failure::new(NodeReason::TooLarge, detail));
        }
        let room = self.command.room().await;
        let copies = 1 + u64::try_from(context.other_runtimes().count()).unwrap_or(0);
        let (mut size, mut is_exact) = (size_of(description).unpacked_times(copies), false);
        loop {
            match room.reserve(self.work.number, size) {
                RoomAnswer::Reserved => return Ok(()),
                RoomAnswer::Refused(why) if is_exact => return Err(Failure::new(NodeReason::NoSpace, why)),
                RoomAnswer::Refused(_) => {
                    size = self.missing(description, inventory, login).await.unpacked_times(copies);
                    is_exact = true;
                }
                RoomAnswer::Wait => {
                    let pause = tokio::time::sleep(LOOK_FOR_ROOM_EVERY);
                    context.time.until_deadline(pause).await?;
                }
            }
        }
    }

    /// Returns what the layers take that are not here yet.
    async fn missing(&self, description: &Description, inventory: &Inventory, login: Option<&Login>) -> Size {
        let Some(held) = &description.content else {
            return Size::default();
        };
        let Command { context, .. } = self.command;
        let asked = context
            .ask_registry(&self.work.image, Kind::Blob, &held.config, login)
            .await;
        let configuration = asked.ok().and_then(|text| Configuration::parse(&text).ok());
        Size::missing(held, configuration.as_ref(), inventory)
    }

    /// Gives the image the names that it lacks.
    async fn name(&mut self, inventory: &Inventory) -> Result<Come, Failure> {
        let Command { parameters, .. } = self.command;
        let is_pulled = self.status == Status::Pulled;
        let note = if parameters.report_only {
            None
        } else {
            self.add_names(inventory).await?
        };
        let attempts = self.attempts();
        let count = attempts.as_ref().map_or(0, |attempts| attempts.count);
        Ok(Come {
            status: self.status,
            note,
            bytes: if is_pulled { self.bytes() } else { 0 },
            // finding an image there is no attempt to pull it
            attempts: if is_pulled { count } else { count.saturating_sub(1) },
            spent: attempts.map_or(Duration::ZERO, |attempts| attempts.began.elapsed()),
        })
    }

    async fn add_names(&self, inventory: &Inventory) -> Result<Option<NodeReason>, Failure> {
        let Command { context, speech, .. } = self.command;
        let Work { image, talk, .. } = self.work;
        let attempts = self.attempts().filter(|_| self.status == Status::Pulled);
        let before = attempts.and_then(|_| self.work.before.borrow().clone());
        let digest_of_tag = async || {
            let login = self.login().await;
            context.ask_registry_for_tag(image, login.as_ref()).await
        };
        let names = naming::add_names(&context.containerd, inventory, image, before.as_ref(), digest_of_tag);
        if context.time.until_end(Box::pin(names)).await?? == Tag::Given {
            return Ok(None);
        }
        let attempt = attempts.as_ref().map_or(1, |attempts| attempts.count.max(1));
        let cause = "the tag stands for another image by now and stays there";
        speech.tell(talk, image, attempt, NodeReason::TagMoved, cause);
        Ok(Some(NodeReason::TagMoved))
    }

    /// Lets go of layers that were downloaded for the pull, which has come, or never will.
    async fn forget_layers(&self) {
        let Command { context, speech, .. } = self.command;
        let Some(content) = self
            .description
            .as_ref()
            .and_then(|described| described.content.as_ref())
        else {
            return;
        };
        // Collecting 1 GB takes a fifth of a second, for which nobody need wait where no other image wants the room.
        let is_other = |work: &Work| work.number != self.work.number && !work.is_told();
        let others_come = self.command.works.iter().any(is_other);
        let forgotten = download::forget(context, &self.work.image, content, others_come);
        if let Ok(Err(status)) = context.time.until_end(Box::pin(forgotten)).await {
            speech.say(&format!("the lease of layers cannot be removed: {}", status.message()));
        }
    }

    /// Tells whether somebody else, such as kubelet, may have pulled the image since the last attempt began.
    fn may_have_come(&self, failure: &Failure) -> bool {
        let is_settled = matches!(
            failure.reason,
            NodeReason::Platform | NodeReason::TooLarge | NodeReason::ReportOnly
        );
        let Command {
            context, parameters, ..
        } = self.command;
        let has_tried = self.attempts().is_some_and(|attempts| attempts.count > 0);
        !is_settled && has_tried && !self.was_there && !parameters.report_only && !context.time.is_over()
    }

    async fn look_whether_it_came(&mut self) -> Option<Come> {
        let context = self.command.context;
        let inventory = context.inventory(Instant::now()).await.ok()?;
        if !inventory.has_content(&self.work.image) || self.work.is_doubtful.get() {
            return None;
        }
        let held = context.describe_held(&self.work.image).await.ok()?;
        refuse_foreign(&held).ok()?;
        self.name(&inventory).await.ok()
    }

    async fn answer(&self) -> Answer {
        match &self.login {
            Some(own) => own.clone(),
            None => self.command.login(self.work).await,
        }
    }

    async fn login(&self) -> Option<Login> {
        match self.answer().await {
            Answer::Given(login) => Some(login),
            Answer::None | Answer::Failed(_) => None,
        }
    }

    fn begin(&self, attempt: u32) {
        let attempts = self.attempts().unwrap_or(Attempts {
            began: Instant::now(),
            count: 0,
        });
        self.work.set(State::AtWork(Attempts {
            count: attempt,
            ..attempts
        }));
    }

    fn remember_names(&self, inventory: &Inventory) {
        let mut before = self.work.before.borrow_mut();
        before.get_or_insert_with(|| Before::of(inventory, &self.work.image));
    }

    fn attempts(&self) -> Option<Attempts> {
        match self.work.state() {
            State::AtWork(attempts) => Some(attempts),
            _ => None,
        }
    }

    fn bytes(&self) -> u64 {
        self.description.as_ref().map_or(0, Description::bytes)
    }
}

fn refuse_foreign(description: &Description) -> Result<(), Failure> {
    match &description.fit {
        Fit::Foreign(why) => Err(Failure::new(NodeReason::Platform, why.clone())),
        Fit::Own | Fit::Unknown => Ok(()),
    }
}

fn size_of(description: &Description) -> Size {
    description.content.as_ref().map_or_else(Size::default, Size::of)
}
