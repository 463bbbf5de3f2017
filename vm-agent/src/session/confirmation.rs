//! When the gateway is told what the kernel runs. After a crash the agent begins with what is on the disk, and an
//! acknowledged generation must not be taken back: so the disk comes first.

use proto::v1::{Ack, Generation, Reject};

use crate::kernel::Tag;

/// What the kernel runs and the gateway was not told yet, with what the host's network lacks of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unconfirmed(Option<(Tag, String)>);

impl Unconfirmed {
    /// The kernel runs this.
    pub fn runs(&mut self, tag: Tag) {
        self.0 = Some((tag, String::new()));
    }

    /// The network lacks something of it. Returns what to say at once, if the gateway knows the rest.
    pub fn troubled(&mut self, tag: Tag, trouble: String) -> Option<Ack> {
        match &mut self.0 {
            Some((unconfirmed, known)) if *unconfirmed == tag => {
                *known = trouble;
                None
            }
            Some(_) | None => Some(ack(tag, trouble)),
        }
    }

    /// What to say now that this is what a restart would begin with.
    pub fn confirm(&mut self, recorded: Option<Tag>) -> Option<Ack> {
        let (tag, trouble) = self.0.take_if(|(tag, _)| recorded == Some(*tag))?;
        Some(ack(tag, trouble))
    }

    /// The hello said it.
    pub fn told(&mut self) {
        self.0 = None;
    }
}

fn ack(tag: Tag, trouble: String) -> Ack {
    Ack { generation: Some(generation(tag)), trouble }
}

/// What the gateway is told that has another state under a number.
#[must_use]
pub fn contradicts(tag: Tag) -> Reject {
    let reason = "this host has another state under this number".to_owned();
    Reject { generation: Some(generation(tag)), reason, contradicts: true }
}

/// A tag, as the protocol has it.
#[must_use]
pub const fn generation(tag: Tag) -> Generation {
    Generation { incarnation: tag.incarnation, counter: tag.counter, origin: tag.origin }
}
