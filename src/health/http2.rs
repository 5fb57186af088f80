//! A request in HTTP/2 on a connection of its own.

use tidegate_codecs::{
    grpc::Status,
    http1::{RequestKind, ResponseHead, trailer_fields},
    http2::{self, ConnectionError, ErrorCode, Event, FieldLine, Options, RequestLine, SendError},
};

use super::Connection;

/// Bytes of a body that are kept. What a check asks for has a few.
const BODY_BYTES_MAX: usize = 4 << 10;
/// A connection that lasts for one request has no time that matters.
const NOW_NS: u64 = 0;

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// In the head or in the trailers.
    pub(super) grpc_status: Option<Status>,
    pub(super) body: Vec<u8>,
}

/// Sends the request, and reads its answer to the end.
pub(super) async fn ask(
    mut connection: Connection,
    line: RequestLine<'_>,
    fields: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, String> {
    let mut codec = http2::Connection::client(&Options::default(), NOW_NS);
    let mut out = Vec::new();
    write_request(&mut codec, line, fields, body, &mut out).map_err(|e| format!("send: {e:?}"))?;
    connection.send(&out).await?;
    let mut answer = Answer::default();
    let mut input = Vec::new();
    loop {
        input.clear();
        if !connection.receive(&mut input).await? {
            return Err("closed before the end of an answer".into());
        }
        let ended = answer.take(&mut codec, &input)?;
        out.clear();
        codec.take_output(&mut out);
        if ended {
            return Ok(answer);
        }
        connection.send(&out).await?;
    }
}

/// The windows of a new connection have room for any question.
fn write_request(
    codec: &mut http2::Connection,
    line: RequestLine<'_>,
    fields: &[(&str, &str)],
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), SendError> {
    let fields = fields.iter();
    let fields = fields.map(|(name, value)| FieldLine::new(name.as_bytes(), value.as_bytes()));
    let id = codec.send_request(line, fields, body.is_empty())?;
    if !body.is_empty() {
        codec.send_data(id, body.len(), true, NOW_NS)?;
    }
    codec.take_output(out);
    out.extend_from_slice(body);
    Ok(())
}

impl Answer {
    /// Takes what was received; whether the answer has come to its end.
    fn take(&mut self, codec: &mut http2::Connection, mut input: &[u8]) -> Result<bool, String> {
        while !input.is_empty() {
            let received = codec.receive(input, NOW_NS).map_err(describe)?;
            let consumed = received.consumed;
            let ended = match received.event {
                Some(Event::Response { end_stream, .. }) => {
                    self.take_head(codec.head());
                    end_stream
                }
                Some(Event::Data {
                    stream,
                    payload,
                    end_stream,
                }) => {
                    self.body.extend_from_slice(payload);
                    if self.body.len() > BODY_BYTES_MAX {
                        // Its beginning has said all that is looked at.
                        return Ok(true);
                    }
                    codec.consume(stream, payload.len());
                    end_stream
                }
                Some(Event::Trailers { .. }) => {
                    let lines = codec.head().text();
                    self.take_status(trailer_fields(lines));
                    true
                }
                Some(Event::Reset {
                    code: ErrorCode::NO_ERROR,
                    ..
                }) if self.status != 0 => true,
                Some(Event::Reset { code, .. }) => return Err(format!("reset: {code:?}")),
                Some(Event::Broken { error, .. }) => return Err(error.detail().into()),
                _ => false,
            };
            if ended {
                return Ok(true);
            }
            input = input.get(consumed..).unwrap_or_default();
        }
        Ok(false)
    }

    fn take_head(&mut self, block: &mut http2::HeaderBlock) {
        let (mut head, mut text) = (ResponseHead::default(), Vec::new());
        if block.is_interim() {
            return;
        }
        block.take_response(true, RequestKind::Other, &mut head, &mut text);
        self.status = head.status;
        let status = head.field(&text, "grpc-status");
        self.grpc_status = status.map(Status::parse);
    }

    fn take_status<'t>(&mut self, mut fields: impl Iterator<Item = (&'t [u8], &'t [u8])>) {
        let status = fields.find(|(name, _)| name.eq_ignore_ascii_case(b"grpc-status"));
        self.grpc_status = status.map(|(_, value)| Status::parse(value));
    }
}

fn describe(error: ConnectionError) -> String {
    format!("not an HTTP/2 answer: {}", error.detail())
}
