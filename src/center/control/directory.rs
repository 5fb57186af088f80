//! The resources of a directory: YAML or JSON files with resources of the Envoy API, read together or not at all. One
//! bad file leaves everything as it was, since resources refer to each other over the bounds of files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest::{SHA256, digest};
use tidegate_xds::{
    document::{self, Encoded},
    server::world::{Resource, World},
    subscription::ResourceType,
};

use crate::watch::{Gone, Watch};

/// Files of a directory. Ten thousand clusters are a few files, or one a team.
pub(super) const FILES_MAX: usize = 1024;

/// Bytes of a file. The largest tables of routes that are known are some 10 MiB of YAML.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;

/// Bytes of all resources, encoded: what a client takes in one message.
pub(super) const WORLD_BYTES_MAX: usize = 64 << 20;

/// Problems that are told. The first ones say what is wrong.
const PROBLEMS_MAX: usize = 16;

/// What a file may be called.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// What a directory holds.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) world: World,
    pub(super) files: usize,
    /// What a Tidegate would not take of it, with its place.
    pub(super) remarks: Vec<String>,
}

/// A directory that is watched.
pub(in crate::center) struct Directory {
    path: PathBuf,
    watch: Watch,
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Directory {
        let watch = watch(&path);
        Directory { path, watch }
    }

    /// Looks once; whether there is a finished change to load.
    pub(super) fn changed(&mut self) -> bool {
        self.watch.changed()
    }

    /// Reads it all. What is the same as in `before` is the same resource.
    ///
    /// # Errors
    ///
    /// What is wrong, each with its place.
    pub(super) fn load(&mut self, before: &World) -> Result<Loaded, Vec<String>> {
        // Before it is read: a change in between is then told.
        self.watch = watch(&self.path);
        read(&self.path, before)
    }
}

/// The directory changes when a file comes or goes, a file when it is written.
fn watch(path: &Path) -> Watch {
    let files = files(path).unwrap_or_default();
    let paths = std::iter::once(path.to_owned()).chain(files);
    Watch::new(paths.collect(), Gone::Changed)
}

/// The files, by name. What begins with a dot is an editor's, or a mounted ConfigMap's own.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let told = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(told)? {
        let file = entry.map_err(told)?.path();
        let is_hidden = file
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let extension = file.extension().and_then(|one| one.to_str());
        if !is_hidden && extension.is_some_and(|one| EXTENSIONS.contains(&one)) {
            files.push(file);
        }
        if files.len() > FILES_MAX {
            return Err(format!("{}: more than {FILES_MAX} files", path.display()));
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path, before: &World) -> Result<Loaded, Vec<String>> {
    let files = files(path).map_err(|why| vec![why])?;
    let mut found = Found::default();
    for file in &files {
        found.read(file);
    }
    found.finish(files.len(), before)
}

/// What was read so far.
#[derive(Default)]
struct Found {
    /// By type and name, with the file that it is from.
    resources: BTreeMap<(ResourceType, String), (Encoded, String)>,
    bytes: usize,
    remarks: Vec<String>,
    problems: Vec<String>,
}

impl Found {
    fn read(&mut self, file: &Path) {
        let name = file.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        match text(file).and_then(|text| document::encode(&text)) {
            Ok(resources) => {
                for resource in resources {
                    match resource {
                        Ok(resource) => self.take(&name, resource),
                        Err(why) => self.problem(format!("{name}: {why}")),
                    }
                }
            }
            Err(why) => self.problem(format!("{name}: {why}")),
        }
    }

    fn take(&mut self, file: &str, mut resource: Encoded) {
        let (kind, name) = (resource.resource_type, resource.name.clone());
        self.bytes += resource.bytes.len();
        let place = format!("{file}: {} `{name}`", kind.word());
        for remark in std::mem::take(&mut resource.remarks) {
            push(&mut self.remarks, format!("{place}: {remark}"));
        }
        if let Some((_, other)) = self.resources.get(&(kind, name.clone())) {
            let why = format!("{place} stands in {other}, too: take one of them out");
            return self.problem(why);
        }
        self.resources
            .insert((kind, name), (resource, file.to_owned()));
    }

    fn problem(&mut self, problem: String) {
        push(&mut self.problems, problem);
    }

    fn finish(mut self, files: usize, before: &World) -> Result<Loaded, Vec<String>> {
        for kind in ResourceType::ALL {
            let of_kind = self.resources.keys().filter(|(one, _)| *one == kind);
            let (count, max) = (of_kind.count(), kind.held_max());
            if count > max {
                let why = format!("{count} resources of kind {}: at most {max}", kind.word());
                self.problem(why);
            }
        }
        if self.bytes > WORLD_BYTES_MAX {
            let (bytes, max) = (self.bytes >> 20, WORLD_BYTES_MAX >> 20);
            self.problem(format!("{bytes} MiB of resources: less than {max} MiB"));
        }
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        let resources = self.resources.into_values();
        let resources = resources.map(|(one, _)| (one.resource_type, served(one, before)));
        Ok(Loaded {
            world: World::new(resources, version),
            files,
            remarks: self.remarks,
        })
    }
}

/// Adds one, and says that there are more than are told.
fn push(lines: &mut Vec<String>, line: String) {
    match lines.len() {
        n if n < PROBLEMS_MAX => lines.push(line),
        PROBLEMS_MAX => lines.push("and more".into()),
        _ => {}
    }
}

fn text(file: &Path) -> Result<String, String> {
    let told = |e: std::io::Error| e.to_string();
    let bytes = fs::metadata(file).map_err(told)?.len();
    if bytes > FILE_BYTES_MAX {
        let max = FILE_BYTES_MAX >> 20;
        return Err(format!("larger than {max} MiB: split it"));
    }
    fs::read_to_string(file).map_err(told)
}

/// A resource with the version that its text has; the one that was served if it is the same.
fn served(one: Encoded, before: &World) -> Arc<Resource> {
    let version = version(&one.text);
    match before.resource(one.resource_type, &one.name) {
        Some(same) if same.version == version => same.clone(),
        _ => Arc::new(Resource {
            name: one.name.into(),
            version,
            bytes: one.bytes,
        }),
    }
}

/// A version of what it is of: the same on every center, and after every start. 64 bits: nobody chooses resources so
/// that two are taken for one.
pub(super) fn version(text: &str) -> Arc<str> {
    let hash = digest(&SHA256, text.as_bytes());
    let hash = hash.as_ref().iter().take(8);
    hash.map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        .into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn cluster(name: &str, timeout: &str) -> String {
        format!(
            "{{ '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: {name}, connect_timeout: {timeout} }}"
        )
    }

    fn encoded(text: &str) -> Encoded {
        document::encode(text).unwrap().remove(0).unwrap()
    }

    /// Goal: versions follow the content, and what is the same is the same resource (E11). Method: two clusters of
    /// which one changes, and comes back.
    #[test]
    fn versions_follow_the_content() {
        let load = |timeout: &str, before: &World| {
            let mut found = Found::default();
            found.take("a.yaml", encoded(&cluster("a", "1s")));
            found.take("b.yaml", encoded(&cluster("b", timeout)));
            found.finish(2, before).unwrap().world
        };
        let first = load("1s", &World::default());
        let second = load("2s", &first);
        assert_ne!(first.version(), second.version());
        let of = |world: &World, name: &str| world.resource(ResourceType::Cluster, name).cloned();
        assert!(Arc::ptr_eq(
            &of(&first, "a").unwrap(),
            &of(&second, "a").unwrap()
        ));
        assert_ne!(
            of(&first, "b").unwrap().version,
            of(&second, "b").unwrap().version
        );
        assert_eq!(load("1s", &second).version(), first.version());
    }

    /// Goal: what cannot be served is told with its place and what to do. Method: a name twice, as many bytes as are
    /// allowed and one more, and more problems than are told.
    #[test]
    fn problems_have_places() {
        let mut found = Found::default();
        found.take("a.yaml", encoded(&cluster("a", "1s")));
        found.take("b.yaml", encoded(&cluster("a", "2s")));
        assert_eq!(
            found.finish(2, &World::default()).unwrap_err(),
            ["b.yaml: cluster `a` stands in a.yaml, too: take one of them out"]
        );
        for (bytes, is_good) in [(WORLD_BYTES_MAX, true), (WORLD_BYTES_MAX + 1, false)] {
            let mut found = Found::default();
            let mut large = encoded(&cluster("a", "1s"));
            large.bytes = vec![0; bytes];
            found.take("a.yaml", large);
            let loaded = found.finish(1, &World::default());
            assert_eq!(loaded.is_ok(), is_good);
        }
        let mut found = Found::default();
        for n in 0..PROBLEMS_MAX + 9 {
            found.problem(n.to_string());
        }
        let problems = found.finish(1, &World::default()).unwrap_err();
        assert_eq!(problems.len(), PROBLEMS_MAX + 1);
        assert_eq!(problems[PROBLEMS_MAX], "and more");
    }

    /// Goal: a directory holds only so many resources of a kind and so many files, each only so large. Method: at the
    /// limit and one above.
    #[test]
    fn directories_are_bounded() {
        let max = ResourceType::Listener.held_max();
        let one =
            encoded("{ '@type': type.googleapis.com/envoy.config.listener.v3.Listener, name: a }");
        for (count, is_good) in [(max, true), (max + 1, false)] {
            let mut found = Found::default();
            for n in 0..count {
                let name = format!("l{n}");
                found.take(
                    "a.yaml",
                    Encoded {
                        name,
                        ..one.clone()
                    },
                );
            }
            assert_eq!(found.finish(1, &World::default()).is_ok(), is_good);
        }
        let folder = std::env::temp_dir().join(format!("tidegate-{}-control", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for n in 0..FILES_MAX {
            fs::write(folder.join(format!("{n}.yaml")), "[]").unwrap();
        }
        // Neither counts.
        fs::write(folder.join(".hidden.yaml"), "a: [").unwrap();
        fs::write(folder.join("notes.txt"), "a: [").unwrap();
        assert_eq!(read(&folder, &World::default()).unwrap().files, FILES_MAX);
        let large = folder.join("0.yaml");
        for (bytes, is_good) in [(FILE_BYTES_MAX, true), (FILE_BYTES_MAX + 1, false)] {
            fs::File::create(&large).unwrap().set_len(bytes).unwrap();
            // The larger one is not even read.
            assert_eq!(text(&large).is_ok(), is_good);
        }
        fs::write(folder.join("more.yml"), "[]").unwrap();
        let problems = read(&folder, &World::default()).unwrap_err();
        assert!(
            problems[0].ends_with("more than 1024 files"),
            "{problems:?}"
        );
        fs::remove_dir_all(&folder).unwrap();
    }
}
