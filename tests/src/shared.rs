//! A world that the tests of one file share: made by the first that needs it, gone with the last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::Result;

use crate::net::Net;

/// A place for a world.
#[derive(Debug)]
pub struct Shared<T>(Mutex<Weak<Mutex<T>>>);

/// What tests share.
pub trait World: Sized {
    /// Makes it.
    fn make() -> Result<Self>;

    /// The network it is in.
    fn net(&self) -> &Net;
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Shared<T> {
    /// An empty place.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }
}

impl<T: World> Shared<T> {
    /// Runs one test, alone, in the world. A test that fails leaves no world for the next.
    ///
    /// # Panics
    ///
    /// If the test or the making of the world fails.
    #[expect(clippy::panic, reason = "this is how a test fails")]
    pub fn test(&self, test: impl FnOnce(&mut T) -> Result<()>) {
        loop {
            let world = self.world().unwrap_or_else(|error| panic!("the world could not be made: {error:#}"));
            // One that broke while this test waited for it is not this test's.
            let Ok(guard) = world.lock() else { continue };
            let mut guard = Guard(guard);
            if let Err(error) = test(&mut guard.0) {
                panic!("{error:#}");
            }
            return;
        }
    }

    fn world(&self) -> Result<Arc<Mutex<T>>> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(world) = place.upgrade().filter(|world| !world.is_poisoned()) {
            return Ok(world);
        }
        let world = Arc::new(Mutex::new(T::make()?));
        *place = Arc::downgrade(&world);
        Ok(world)
    }
}

/// Shows the programs' outputs when the test fails.
struct Guard<'a, T: World>(MutexGuard<'a, T>);

impl<T: World> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.net().show_logs();
        }
    }
}
