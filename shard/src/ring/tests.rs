//! The ring against real sockets of the standard library, with ordinary and with the smallest sizes.
// The peers of these tests are the standard library's blocking sockets, on threads of their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    pin::pin,
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

use nix::sys::eventfd::EventFd;
use tidegate_core::config::model;

use super::{Acceptor, Backlog, Driver, Payload, Socket};
use crate::executor;

/// The smallest ring there is: everything must still work, only slower.
fn smallest() -> model::Ring {
    model::Ring {
        submission_entries: 4,
        completion_entries: 8,
        head_buffers: 4,
        head_buffer_bytes: 512,
        body_buffers: 4,
        body_buffer_bytes: 4096,
        ..model::Ring::default()
    }
}

/// Runs `main` on a shard's thread and returns what it returns.
fn on_a_shard<T, M, F>(sizes: model::Ring, main: M) -> T
where
    T: Send + 'static,
    M: FnOnce(Rc<Driver>) -> F + Send + 'static,
    F: Future<Output = T> + 'static,
{
    let (sender, receiver) = std::sync::mpsc::channel();
    let handle = executor::spawn_thread("test".into(), None, move || async move {
        let wake: Arc<OwnedFd> = Arc::new(EventFd::new().unwrap().into());
        let driver = Driver::new(&sizes, &model::Limits::default(), wake).unwrap();
        let done = Rc::new(std::cell::Cell::new(false));
        let (task_driver, task_done) = (driver.clone(), done.clone());
        executor::spawn(&driver, async move {
            let value = main(task_driver.clone()).await;
            sender.send(value).unwrap();
            task_done.set(true);
            task_driver.mark_runnable();
        });
        executor::run(&driver, || done.get()).await
    });
    let value = receiver
        .recv_timeout(Duration::from_secs(60))
        .expect("the task ended");
    handle.unwrap().join().unwrap().unwrap();
    value
}

fn listener() -> (OwnedFd, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener.into(), address)
}

/// Echoes until the peer half-closes, then half-closes too.
async fn echo(socket: &Socket, expected: Option<u64>) {
    if let Some(expected) = expected {
        socket.start_receiving();
        socket.expect(expected);
    }
    while let Some(chunk) = socket.receive().await.unwrap() {
        socket.send(Payload::chunk(chunk)).await.unwrap();
    }
    socket.flush().await.unwrap();
    socket.shutdown_write();
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// Goal: bytes arrive whole and in order in pieces of any size, however small the ring. Method: 200 kB through
/// an echo, the client reading and writing at the same time.
#[test]
fn echoes_in_all_sizes() {
    for sizes in [model::Ring::default(), smallest()] {
        for expected in [None, Some(0), Some(6000), Some(200_000)] {
            let (fd, address) = listener();
            let client = thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                let sent = pattern(200_000);
                let mut writer = stream.try_clone().unwrap();
                let copy = sent.clone();
                let writing = thread::spawn(move || {
                    writer.write_all(&copy).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let mut got = Vec::new();
                stream.read_to_end(&mut got).unwrap();
                writing.join().unwrap();
                assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
            });
            on_a_shard(sizes, move |driver| async move {
                let acceptor = Acceptor::new(&driver, fd);
                let socket = Socket::new(&driver, acceptor.accept().await.unwrap().unwrap());
                echo(&socket, expected).await;
            });
            client.join().unwrap();
        }
    }
}

/// Goal: connections that nobody reads do not keep another from being served. Method: eight clients
/// write 2 kB each that the shard never reads, while all four buffers are theirs to take; a ninth is
/// echoed.
#[test]
fn unread_connections_starve_nobody() {
    let (fd, address) = listener();
    let client = thread::spawn(move || {
        let idle: Vec<_> = (0..8)
            .map(|_| {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(&pattern(2000)).unwrap();
                stream
            })
            .collect();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"last").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        drop(idle);
        got
    });
    on_a_shard(smallest(), move |driver| async move {
        let acceptor = Acceptor::new(&driver, fd);
        let mut idle = Vec::new();
        for _ in 0..8 {
            let socket = Socket::new(&driver, acceptor.accept().await.unwrap().unwrap());
            socket.start_receiving();
            idle.push(socket);
        }
        let socket = Socket::new(&driver, acceptor.accept().await.unwrap().unwrap());
        echo(&socket, Some(0)).await;
    });
    assert_eq!(client.join().unwrap(), b"last");
}

/// Goal: at a close nobody is lost: connections that the kernel has accepted are handed out, and those that wait are
/// taken, or left to whoever has the socket too, for whom it stays as it was. Method: twenty clients, a close behind
/// the first; who was not accepted here is accepted through the other handle.
#[test]
fn closes_lose_nobody() {
    for sizes in [smallest(), model::Ring::default()] {
        for backlog in [Backlog::Taken, Backlog::Left] {
            let (fd, address) = listener();
            let other = TcpListener::from(fd.try_clone().unwrap());
            let clients: Vec<_> = (0..20)
                .map(|_| TcpStream::connect(address).unwrap())
                .collect();
            let accepted = on_a_shard(sizes, move |driver| async move {
                let acceptor = Acceptor::new(&driver, fd);
                let mut accepted = vec![acceptor.accept().await.unwrap().unwrap()];
                acceptor.close(backlog);
                while let Some(one) = acceptor.accept().await {
                    accepted.push(one.unwrap());
                }
                accepted.len()
            });
            let is_nonblocking = socket2::SockRef::from(&other).nonblocking().unwrap();
            other.set_nonblocking(true).unwrap();
            let left = std::iter::from_fn(|| other.accept().ok()).count();
            assert_eq!(accepted + left, clients.len(), "{backlog:?}");
            match backlog {
                Backlog::Taken => assert_eq!(left, 0),
                Backlog::Left => assert!(!is_nonblocking),
            }
        }
    }
}

/// Goal: what is dropped in the middle gives everything back: descriptors, buffers, slots. Method: 50
/// connections are dropped with a receive armed and a large send stuck, then the driver is asked.
#[test]
fn dropped_sockets_leave_nothing_behind() {
    let (fd, address) = listener();
    let client = thread::spawn(move || {
        let streams: Vec<_> = (0..50)
            .map(|_| {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(&pattern(5000)).unwrap();
                stream
            })
            .collect();
        // Reading to the end shows that the shard has closed each of them.
        for mut stream in streams {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    let (sockets, heads_free) = on_a_shard(model::Ring::default(), move |driver| async move {
        let acceptor = Acceptor::new(&driver, fd);
        for _ in 0..50 {
            let socket = Socket::new(&driver, acceptor.accept().await.unwrap().unwrap());
            socket.start_receiving();
            let _ = socket.receive().await.unwrap();
            socket.send(Payload::head(vec![0; 16 << 20])).await.unwrap();
        }
        let deadline = driver.deadline();
        while driver.sockets_open() > 0 {
            deadline.set_after(Duration::from_millis(5));
            deadline.reached().await;
        }
        (driver.sockets_open(), driver.stats().heads_free)
    });
    assert_eq!((sockets, heads_free), (0, 256));
    client.join().unwrap();
}

/// Goal: head and body go out as one, from where they lie. Method: a 30 kB chunk behind a head.
#[test]
fn sends_head_and_body_as_one() {
    let (fd, address) = listener();
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&pattern(30_000)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    });
    on_a_shard(model::Ring::default(), move |driver| async move {
        let acceptor = Acceptor::new(&driver, fd);
        let socket = Socket::new(&driver, acceptor.accept().await.unwrap().unwrap());
        socket.start_receiving();
        socket.expect(200_000);
        let mut first = true;
        while let Some(chunk) = socket.receive().await.unwrap() {
            let head = if std::mem::take(&mut first) {
                b"head ".to_vec()
            } else {
                Vec::new()
            };
            socket
                .send(Payload::head(head).followed_by(chunk))
                .await
                .unwrap();
        }
        socket.flush().await.unwrap();
        socket.shutdown_write();
    });
    let got = client.join().unwrap();
    assert_eq!(got.len(), 30_005);
    assert_eq!(&got[..5], b"head ");
    assert!(got[5..] == pattern(30_000));
}

/// Goal: connecting tells refusal from success. Method: to a listener, and to where none is.
#[test]
fn connects_or_says_why_not() {
    let (fd, address) = listener();
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (alive, refused) = on_a_shard(model::Ring::default(), move |driver| async move {
        let alive = Socket::connect(&driver, address).await.is_ok();
        let refused = Socket::connect(&driver, dead)
            .await
            .err()
            .and_then(|e| e.raw_os_error());
        drop(fd);
        (alive, refused)
    });
    assert!(alive);
    assert_eq!(refused, Some(libc::ECONNREFUSED));
}

/// Goal: a deadline ends a wait, and only then. Method: a receive that never comes.
#[test]
fn deadlines_end_waits() {
    let (fd, address) = listener();
    let stream = TcpStream::connect(address).unwrap();
    let waited = on_a_shard(model::Ring::default(), move |driver| async move {
        let acceptor = Acceptor::new(&driver, fd);
        let socket = Socket::new(&driver, acceptor.accept().await.unwrap().unwrap());
        socket.start_receiving();
        let deadline = driver.deadline();
        let before_ns = driver.clock_ns();
        deadline.set_after(Duration::from_millis(30));
        assert!(deadline.bound(pin!(socket.receive())).await.is_err());
        driver.clock_ns() - before_ns
    });
    assert!(waited >= 29_000_000, "{waited}");
    drop(stream);
}

/// Goal: another thread wakes a sleeping shard at once. Method: a write to the eventfd.
#[test]
fn rings_through_the_ring() {
    let wake = Arc::new(EventFd::new().unwrap());
    let from_outside: Arc<OwnedFd> = Arc::new(wake.as_ref().try_clone_fd());
    let (sender, receiver) = std::sync::mpsc::channel();
    let handle = executor::spawn_thread("test".into(), None, move || async move {
        let sizes = model::Ring::default();
        let driver = Driver::new(&sizes, &model::Limits::default(), from_outside).unwrap();
        let done = Rc::new(std::cell::Cell::new(false));
        let (task_driver, task_done) = (driver.clone(), done.clone());
        executor::spawn(&driver, async move {
            sender.send(()).unwrap();
            task_driver.rung().await;
            task_driver.rung().await;
            task_done.set(true);
            task_driver.mark_runnable();
        });
        executor::run(&driver, || done.get()).await
    })
    .unwrap();
    receiver.recv().unwrap();
    while !handle.is_finished() {
        wake.write(1).unwrap();
        thread::yield_now();
    }
    handle.join().unwrap().unwrap();
}

trait TryCloneFd {
    fn try_clone_fd(&self) -> OwnedFd;
}

impl TryCloneFd for EventFd {
    fn try_clone_fd(&self) -> OwnedFd {
        use std::os::fd::AsFd;
        self.as_fd().try_clone_to_owned().unwrap()
    }
}
