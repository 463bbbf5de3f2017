//! Cuts a connection from elsewhere: from where it is seen that its peer takes nothing any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;

use futures_util::task::AtomicWaker;

/// What cuts one connection; cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Cut(Arc<State>);

#[derive(Debug, Default)]
struct State {
    done: AtomicBool,
    reader: AtomicWaker,
}

impl Cut {
    /// Cuts the connection.
    pub fn now(&self) {
        self.0.done.store(true, Ordering::Release);
        self.0.reader.wake();
    }

    /// Whether the connection was cut; else its reader is woken when it is.
    pub(super) fn is_done(&self, cx: &Context<'_>) -> bool {
        if self.0.done.load(Ordering::Acquire) {
            return true;
        }
        self.0.reader.register(cx.waker());
        self.0.done.load(Ordering::Acquire)
    }
}

impl PartialEq for Cut {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Cut {}
