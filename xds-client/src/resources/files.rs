//! What files bring: a subscription for each type and file, which hears the file's content as the response of a server
//! that speaks the state of the world. Who reads the files is told which.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{Decoded, RawResponse, Resources, decode};
use crate::{
    source::{FILES_MAX, OfFile},
    subscription::{Claim, ResourceType, Subscription, Update, Variant},
    translate,
};

/// How a file is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// The file, and what it brings.
    pub of: OfFile,
    /// The version accepted last; empty if there is none.
    pub version: String,
    /// What is wrong with its content, if anything is.
    pub error: Option<String>,
}

/// All files.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// At most [`FILES_MAX`].
    held: BTreeMap<OfFile, Held>,
    reads: u64,
    failed: u64,
}

#[derive(Debug)]
struct Held {
    subscription: Subscription,
    /// It was never read, or holds something that nobody wanted when it was.
    is_due: bool,
    error: Option<String>,
}

type Updates = Vec<Update<translate::Resource>>;

impl Held {
    fn new(resource_type: ResourceType) -> Held {
        let mut subscription = Subscription::usual(resource_type, Variant::StateOfTheWorld);
        // A file is there as long as it is wanted.
        subscription.connected(Claim::Versions);
        Held {
            subscription,
            is_due: true,
            error: None,
        }
    }

    /// Asks for these names, and for no others.
    fn want(&mut self, names: &BTreeSet<String>) {
        self.is_due |= !names.is_subset(self.subscription.names());
        self.subscription.want(names);
    }

    /// A file hears no requests; from when something is waited for is noted with them.
    fn drop_requests(&mut self, now: Duration) {
        while self.subscription.poll_request(now).is_some() {}
    }
}

impl Files {
    pub(super) fn deadline(&self) -> Option<Duration> {
        let held = self.held.values();
        held.filter_map(|one| one.subscription.deadline()).min()
    }

    pub(super) fn elapsed(&mut self, now: Duration) -> Vec<(ResourceType, Updates)> {
        let held = self.held.iter_mut();
        let elapsed = held.map(|(of, one)| {
            let updates = one.subscription.elapsed(now);
            (of.resource_type, keyed(of, updates))
        });
        elapsed.collect()
    }

    /// What is asked for and held of a type, by what it is called.
    pub(super) fn known(&self, resource_type: ResourceType) -> BTreeMap<String, Option<&String>> {
        let of_type = self.held.iter();
        let of_type = of_type.filter(|(of, _)| of.resource_type == resource_type);
        let mut known = BTreeMap::new();
        for (of, one) in of_type {
            let names = one.subscription.names().iter();
            known.extend(names.map(|name| (of.key(name.clone()), None)));
            let held = one.subscription.held().iter();
            known.extend(held.map(|(name, version)| (of.key(name.clone()), Some(version))));
        }
        known
    }
}

impl Resources {
    /// Takes all of a type from this file, instead of from the stream.
    pub fn take_from(&mut self, of: OfFile) {
        self.subscriptions
            .retain(|one| one.resource_type() != of.resource_type);
        self.files
            .held
            .insert(of.clone(), Held::new(of.resource_type));
    }

    /// There is no stream: files are all there is.
    pub fn without_stream(&mut self) {
        self.is_streamed = false;
    }

    /// The files that are to be watched.
    pub fn files(&self) -> impl Iterator<Item = &OfFile> {
        self.files.held.keys()
    }

    /// Those that are to be read, whether they have changed or not. Each is named once.
    pub fn files_due(&mut self) -> Vec<OfFile> {
        let due = self.files.held.iter_mut();
        let due = due.filter_map(|(of, one)| std::mem::take(&mut one.is_due).then(|| of.clone()));
        due.collect()
    }

    /// Takes in what a file holds, or why that is nothing. What it held before stays then.
    pub fn receive_file(&mut self, of: &OfFile, read: Result<RawResponse, String>, now: Duration) {
        self.files.reads += 1;
        let resource_type = of.resource_type;
        let Some(held) = self.files.held.get_mut(of) else {
            // Nobody refers to it any more.
            return;
        };
        let told = self.told.entry(resource_type).or_default();
        let response = match read.and_then(|response| of_type(resource_type, response)) {
            Ok(response) => response,
            Err(why) => {
                self.files.failed += 1;
                tracing::warn!("xDS: {}: {why}", of.file.path);
                told.last_error = Some(format!("{}: {why}", of.file.path));
                held.error = Some(why);
                held.drop_requests(now);
                return;
            }
        };
        let Decoded {
            response, refused, ..
        } = decode(resource_type, response, told, Some(of), now);
        let updates = held.subscription.receive(response, now);
        held.error = held.subscription.error().map(str::to_owned);
        if let Some(error) = &held.error {
            self.files.failed += 1;
            tracing::warn!("xDS: {}: {error}", of.file.path);
        }
        told.count(&updates, refused, held.error.as_deref());
        held.drop_requests(now);
        self.apply(resource_type, keyed(of, updates));
    }

    /// How each file is doing.
    pub fn file_status(&self) -> Vec<FileStatus> {
        let held = self.files.held.iter();
        held.map(|(of, one)| FileStatus {
            of: of.clone(),
            version: one.subscription.version().to_owned(),
            error: one.error.clone(),
        })
        .collect()
    }

    /// Files read so far, and how many of them were refused, wholly or in part.
    pub fn file_reads(&self) -> (u64, u64) {
        (self.files.reads, self.files.failed)
    }

    /// Watches the files that something held names for a type, and no others.
    pub(super) fn follow_files(&mut self, resource_type: ResourceType) {
        let wanted = self.graph.wanted_of_files(resource_type);
        let told = self.told.entry(resource_type).or_default();
        self.files.held.retain(|of, one| {
            let is_wanted = of.resource_type != resource_type || wanted.contains_key(&of.file);
            let names = one.subscription.names().iter();
            let gone = names.filter(|name| {
                let of_file = wanted.get(&of.file);
                of.resource_type == resource_type
                    && !of_file.is_some_and(|names| names.contains(*name))
            });
            gone.for_each(|name| told.forget(&of.key(name.clone())));
            is_wanted
        });
        let mut beyond = BTreeSet::new();
        for (file, names) in wanted {
            let of = OfFile {
                resource_type,
                file,
            };
            let has_room = self.files.held.len() < FILES_MAX || self.files.held.contains_key(&of);
            if !has_room {
                beyond.extend(names.into_iter().map(|name| Arc::from(of.key(name))));
                continue;
            }
            let held = self.files.held.entry(of);
            held.or_insert_with(|| Held::new(resource_type))
                .want(&names);
        }
        if !beyond.is_empty() {
            tracing::error!("xDS: more than {FILES_MAX} files are named, and no more are watched");
            self.nobody_brings(resource_type, &beyond);
        }
    }

    /// These cannot come: whoever waits for them is to go on.
    pub(super) fn nobody_brings(
        &mut self,
        resource_type: ResourceType,
        names: &BTreeSet<Arc<str>>,
    ) {
        for name in names {
            let name = (**name).to_owned();
            self.graph.apply(resource_type, Update::Missing { name });
        }
    }
}

/// A file may leave out of what type its resources are.
fn of_type(resource_type: ResourceType, response: RawResponse) -> Result<RawResponse, String> {
    match response.type_url.as_str() {
        "" => Ok(response),
        url if url == resource_type.url() => Ok(response),
        url => Err(format!(
            "its type is `{url}`, not `{}`",
            resource_type.url()
        )),
    }
}

/// The same by what resources are called beside those of others.
fn keyed(of: &OfFile, updates: Updates) -> Updates {
    let keyed = updates.into_iter().map(|update| match update {
        Update::Set { name, value } => Update::Set {
            name: of.key(name),
            value,
        },
        Update::Removed { name } => Update::Removed { name: of.key(name) },
        Update::Expired { name } => Update::Expired { name: of.key(name) },
        Update::Missing { name } => Update::Missing { name: of.key(name) },
    });
    keyed.collect()
}
