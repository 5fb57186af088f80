//! A task that waits for another one of its shard.

use std::{
    cell::Cell,
    task::{Context, Waker},
};

use crate::ring::Driver;

/// The task, while it waits.
#[derive(Default)]
pub(crate) struct Waiter(Cell<Option<Waker>>);

impl Waiter {
    /// Remembers whom to wake.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let known = self.0.take().filter(|waker| waker.will_wake(cx.waker()));
        self.0
            .set(Some(known.unwrap_or_else(|| cx.waker().clone())));
    }

    /// Wakes it, if it waits.
    pub(crate) fn wake(&self, driver: &Driver) {
        if let Some(waker) = self.0.take() {
            waker.wake();
            driver.mark_runnable();
        }
    }
}
