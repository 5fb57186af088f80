//! HTTP/2 frame by frame, for peers that no library would play: bytes out as given, frames in, read naively.
//! It shares no code with the proxy's codec.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
};

use super::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GO_AWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const INTERNAL_ERROR: u32 = 2;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it came.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Of RST_STREAM: the code. Of GOAWAY: the same, behind the last stream.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GO_AWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    pub fn last_stream(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }
}

/// One end of a connection, over TCP or what runs over it.
pub struct Frames<S = TcpStream> {
    pub stream: S,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Fields, each as a literal that enters no table.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            push_length(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// A length with a prefix of seven bits (RFC 7541, 5.1).
fn push_length(bytes: &mut Vec<u8>, mut length: usize) {
    if length < 127 {
        bytes.push(length as u8);
        return;
    }
    bytes.push(127);
    length -= 127;
    while length >= 128 {
        bytes.push((length % 128) as u8 | 128);
        length /= 128;
    }
    bytes.push(length as u8);
}

/// The pseudo-header fields of a request.
pub fn line<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [
        (":method", method),
        (":scheme", "http"),
        (":authority", "a.example"),
        (":path", path),
    ]
}

pub fn get(stream: u32, path: &str) -> Vec<u8> {
    let fields = block(&line("GET", path));
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields)
}

pub fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(&line("POST", path)))
}

impl Frames {
    /// Connects and says the preface and empty settings.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Frames {
        Frames::connect_with(address, &[])
    }

    /// The same, with settings.
    #[track_caller]
    pub fn connect_with(address: SocketAddr, settings: &[(u16, u32)]) -> Frames {
        let mut frames = Frames::over(TcpStream::connect(address).unwrap());
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        frames.send(PREFACE);
        frames.send(frame(SETTINGS, 0, 0, &payload));
        frames
    }

    pub fn over(stream: TcpStream) -> Frames {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Frames { stream }
    }

    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

impl<S: Read + Write> Frames<S> {
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends to a peer that may have had enough. False if it takes no more.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// The next frame; `None` when the peer has closed.
    #[track_caller]
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        if let Err(error) = self.stream.read_exact(&mut head) {
            let is_end = matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            );
            assert!(is_end, "{error}");
            return None;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).unwrap();
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes(head[5..].try_into().unwrap()),
            payload,
        })
    }

    /// The next frame that `is_it`; the others are dropped. SETTINGS are acknowledged.
    #[track_caller]
    pub fn until(&mut self, what: &str, is_it: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let Some(got) = self.next() else {
                panic!("closed before {what}");
            };
            if got.kind == SETTINGS && got.flags & ACK == 0 {
                self.try_send(frame(SETTINGS, ACK, 0, &[]));
            }
            if is_it(&got) {
                return got;
            }
        }
    }

    #[track_caller]
    pub fn until_kind(&mut self, kind: u8) -> Frame {
        self.until(&format!("a frame of kind {kind}"), |got| got.kind == kind)
    }

    /// The end of a stream: its last frame.
    #[track_caller]
    pub fn until_end(&mut self, stream: u32) -> Frame {
        self.until(&format!("the end of stream {stream}"), |got| {
            let ends = matches!(got.kind, DATA | HEADERS) && got.flags & END_STREAM != 0;
            got.stream == stream && (ends || got.kind == RESET)
        })
    }

    /// Reads to the end of the connection; the last GOAWAY.
    #[track_caller]
    pub fn until_closed(&mut self) -> Frame {
        let mut last = None;
        while let Some(got) = self.next() {
            if got.kind == GO_AWAY {
                last = Some(got);
            }
        }
        last.expect("a GOAWAY before the end")
    }
}
