//! The little of etcd's API v3 that a center needs: a key that one of several holds by a lease, and keys
//! that only its holder writes.
//!
//! The messages are a subset of etcd's, checked in as generated code: the client crates of others run a
//! compiler of protos at build time, which this project does not ask for.

use std::time::Duration;

use futures_lite::stream;
use tokio::time::timeout;

use crate::pb::{
    Channel, ConnectError, Endpoint, Status,
    etcd::{
        self as pb, compare, kv_client::KvClient, lease_client::LeaseClient, request_op,
        response_op,
    },
};

/// Bytes of one answer. Pages of [`PAGE`] records are far smaller.
const MESSAGE_MAX: usize = 32 * 1024 * 1024;

/// Records of one page of a range.
const PAGE: i64 = 500;

/// Operations of one transaction: etcd's own default limit is 128.
pub const OPERATIONS_MAX: usize = 128;

/// Why a request failed.
#[derive(Debug)]
pub enum Error {
    /// An address makes no sense.
    Address(String),
    /// etcd does not answer in time.
    Timeout,
    /// etcd refuses, or is not there.
    Refused(String),
    /// The key is held by another, or by nobody: what was to be written was not.
    NotHolder,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Address(why) => write!(f, "etcd: {why}"),
            Error::Timeout => f.write_str("etcd: no answer in time"),
            Error::Refused(why) => write!(f, "etcd: {why}"),
            Error::NotHolder => f.write_str("etcd: another leads"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        Error::Refused(status.message().to_owned())
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Error {
        Error::Address(error.to_string())
    }
}

/// A client of a cluster of etcds.
#[derive(Clone)]
pub struct Etcd {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    /// For each request.
    patience: Duration,
}

/// Who holds a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// We do, since this revision: it grows with every new holder.
    Us(i64),
    /// Another, who wrote this.
    Other(String),
}

/// One write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The key has this value from now on.
    Put(String, String),
    /// The key is gone.
    Delete(String),
}

impl Etcd {
    /// A client of the etcds at `urls` (`http://HOST:PORT`), that waits `patience` for each answer. Connects
    /// when it is first used. To be made on a tokio runtime.
    pub fn new(urls: &[String], patience: Duration) -> Result<Etcd, Error> {
        let endpoints = urls.iter().map(|url| {
            let endpoint = Endpoint::from_shared(url.clone())?.connect_timeout(patience);
            Ok(endpoint)
        });
        let endpoints: Vec<Endpoint> = endpoints.collect::<Result<_, Error>>()?;
        if endpoints.is_empty() {
            return Err(Error::Address("no URL is given".into()));
        }
        let channel = Channel::balance_list(endpoints.into_iter());
        Ok(Etcd {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(MESSAGE_MAX),
            lease: LeaseClient::new(channel),
            patience,
        })
    }

    async fn within<T>(
        &self,
        request: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Error> {
        match timeout(self.patience, request).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Error::Timeout),
        }
    }

    /// A lease of `ttl`, in whole seconds.
    pub async fn grant(&self, ttl: Duration) -> Result<i64, Error> {
        let mut lease = self.lease.clone();
        let request = pb::LeaseGrantRequest {
            ttl: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
        };
        let granted = self.within(lease.lease_grant(request)).await?.into_inner();
        match granted.error.is_empty() {
            true => Ok(granted.id),
            false => Err(Error::Refused(granted.error)),
        }
    }

    /// Begins the time of a lease anew; false if it is gone.
    pub async fn keep_alive(&self, lease: i64) -> Result<bool, Error> {
        let mut client = self.lease.clone();
        let request = stream::once(pb::LeaseKeepAliveRequest { id: lease });
        let renewed = async {
            let mut answers = client.lease_keep_alive(request).await?.into_inner();
            answers.message().await
        };
        let answer = self.within(renewed).await?;
        Ok(answer.is_some_and(|answer| answer.ttl > 0))
    }

    /// Gives a lease back, and every key with it.
    pub async fn revoke(&self, lease: i64) -> Result<(), Error> {
        let mut client = self.lease.clone();
        let request = pb::LeaseRevokeRequest { id: lease };
        self.within(client.lease_revoke(request)).await?;
        Ok(())
    }

    /// Takes `key` with `value` under `lease` if nobody holds it; says who does.
    pub async fn campaign(&self, key: &str, value: &str, lease: i64) -> Result<Holder, Error> {
        let mut kv = self.kv.clone();
        let put = pb::PutRequest {
            key: key.into(),
            value: value.into(),
            lease,
        };
        let get = pb::RangeRequest {
            key: key.into(),
            range_end: Vec::new(),
            limit: 1,
        };
        let request = pb::TxnRequest {
            // A key that does not exist was created at revision 0.
            compare: vec![created_at(key, 0)],
            success: vec![operation(request_op::Request::RequestPut(put))],
            failure: vec![operation(request_op::Request::RequestRange(get))],
        };
        let answer = self.within(kv.txn(request)).await?.into_inner();
        if answer.succeeded {
            let revision = answer.header.map_or(0, |header| header.revision);
            return Ok(Holder::Us(revision));
        }
        let found = answer
            .responses
            .into_iter()
            .find_map(|response| match response.response {
                Some(response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
                _ => None,
            });
        let value = found.map(|found| found.value).unwrap_or_default();
        Ok(Holder::Other(String::from_utf8_lossy(&value).into_owned()))
    }

    /// Everything whose key begins with `prefix`, in the order of keys.
    pub async fn range(&self, prefix: &str) -> Result<Vec<(String, String)>, Error> {
        let mut found = Vec::new();
        let mut key = prefix.as_bytes().to_vec();
        loop {
            let mut kv = self.kv.clone();
            let request = pb::RangeRequest {
                key: key.clone(),
                range_end: after(prefix),
                limit: PAGE,
            };
            let page = self.within(kv.range(request)).await?.into_inner();
            let Some(last) = page.kvs.last() else {
                return Ok(found);
            };
            key.clone_from(&last.key);
            key.push(0);
            found.extend(page.kvs.into_iter().map(|kv| {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                (text(&kv.key), text(&kv.value))
            }));
            if !page.more {
                return Ok(found);
            }
        }
    }

    /// Writes all of `writes`, at most [`OPERATIONS_MAX`], or none: they count only while we hold `key`
    /// since `revision`.
    pub async fn write(&self, key: &str, revision: i64, writes: &[Write]) -> Result<(), Error> {
        debug_assert!(writes.len() <= OPERATIONS_MAX);
        let mut kv = self.kv.clone();
        let success = writes.iter().map(|write| {
            operation(match write {
                Write::Put(key, value) => request_op::Request::RequestPut(pb::PutRequest {
                    key: key.as_bytes().into(),
                    value: value.as_bytes().into(),
                    lease: 0,
                }),
                Write::Delete(key) => {
                    request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest {
                        key: key.as_bytes().into(),
                        range_end: Vec::new(),
                    })
                }
            })
        });
        let request = pb::TxnRequest {
            compare: vec![created_at(key, revision)],
            success: success.collect(),
            failure: Vec::new(),
        };
        match self.within(kv.txn(request)).await?.into_inner().succeeded {
            true => Ok(()),
            false => Err(Error::NotHolder),
        }
    }
}

fn created_at(key: &str, revision: i64) -> pb::Compare {
    pb::Compare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Create.into(),
        key: key.into(),
        target_union: Some(compare::TargetUnion::CreateRevision(revision)),
    }
}

fn operation(request: request_op::Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

/// The first key after all that begin with `prefix`. Ours are ASCII: the last byte can be one more.
fn after(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}
