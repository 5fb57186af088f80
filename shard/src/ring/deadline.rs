//! Deadlines on the driver's wheel.

use std::{
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use super::Driver;
use crate::timer::TimerId;

/// A deadline of one task. It can be moved at any time; moving it forward is a store.
pub(crate) struct Deadline {
    id: TimerId,
    driver: Rc<Driver>,
}

/// The deadline passed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

impl Deadline {
    pub(super) fn new(driver: Rc<Driver>, id: TimerId) -> Deadline {
        Deadline { id, driver }
    }

    /// Moves the deadline to `at_ns` on the driver's clock.
    pub(crate) fn set(&self, at_ns: u64) {
        self.driver.wheel().set(self.id, Some(at_ns));
    }

    /// Moves the deadline to `after` from this turn's time.
    pub(crate) fn set_after(&self, after: Duration) {
        self.set(self.driver.now_ns().saturating_add(after.as_nanos() as u64));
    }

    /// Runs `future` until the deadline, which `future` itself may move. The caller pins it: one that is passed by value
    /// has room twice in the caller's own, as what is passed and as what is polled.
    pub(crate) async fn bound<F: Future>(
        &self,
        mut future: Pin<&mut F>,
    ) -> Result<F::Output, Elapsed> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            let mut wheel = self.driver.wheel();
            if wheel.expired(self.id, self.driver.now_ns()) {
                return Poll::Ready(Err(Elapsed));
            }
            wheel.register(self.id, cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Waits for the deadline.
    pub(crate) async fn reached(&self) {
        let _ = self.bound(pin!(std::future::pending::<()>())).await;
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let waker = self.driver.wheel().remove(self.id);
        drop(waker);
    }
}
