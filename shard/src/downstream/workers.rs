//! Tasks that serve streams, kept for the next ones. Such a task is some kilobytes: to allocate them, to move them in and
//! to free them for each of 200,000 requests/s costs more than to wake one that has just ended.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Poll,
};

use super::http2::{ClientStream, serve_stream};
use crate::{executor, http2::Waiter, request::Start};

/// Tasks of a shard that wait for a stream, at most: 3.3 KiB each. A burst has more of them for as long as it lasts.
const IDLE_MAX: usize = 256;

/// Tasks without a stream.
#[derive(Default)]
pub(crate) struct Workers(RefCell<Vec<Rc<Desk>>>);

/// Where a task finds its next stream.
#[derive(Default)]
struct Desk {
    job: Cell<Option<(ClientStream, Start)>>,
    waiter: Waiter,
}

impl Workers {
    /// Whether it is kept.
    fn keep(&self, desk: &Rc<Desk>) -> bool {
        let mut idle = self.0.borrow_mut();
        let has_room = idle.len() < IDLE_MAX;
        if has_room {
            idle.push(desk.clone());
        }
        has_room
    }
}

/// Serves a request in a task.
pub(super) fn start(on: ClientStream, start: Start) {
    let local = on.connection.client.local.clone();
    let idle = local.workers.0.borrow_mut().pop();
    let is_new = idle.is_none();
    let desk = idle.unwrap_or_default();
    desk.job.set(Some((on, start)));
    match is_new {
        true => executor::spawn(&local.driver, work(desk)),
        false => desk.waiter.wake(&local.driver),
    }
}

/// One stream after the other.
async fn work(desk: Rc<Desk>) {
    loop {
        let (on, start) = std::future::poll_fn(|cx| match desk.job.take() {
            Some(job) => Poll::Ready(job),
            None => {
                desk.waiter.register(cx);
                Poll::Pending
            }
        })
        .await;
        // Not held while there is nothing to do.
        let local = on.connection.client.local.clone();
        serve_stream(on, start).await;
        if !local.workers.keep(&desk) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what a burst has made is not kept without bound. Method: as many idle tasks as are kept, and one more.
    #[test]
    fn idle_tasks_are_bounded() {
        let workers = Workers::default();
        for _ in 0..IDLE_MAX {
            assert!(workers.keep(&Rc::default()));
        }
        assert!(!workers.keep(&Rc::default()));
        drop(workers.0.borrow_mut().pop());
        assert!(workers.keep(&Rc::default()));
    }
}
