//! The examples of RFC 7541, appendix C, its errors, and round trips.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use proptest::prelude::*;

use super::*;

type Fields = Vec<(String, String)>;
/// Name, value, never indexed.
type Decoded = (Vec<u8>, Vec<u8>, bool);

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Decoded>, HpackError> {
    let mut fields = Vec::new();
    decoder.decode(block, |line| {
        fields.push((line.name.to_vec(), line.value.to_vec(), line.never_indexed));
    })?;
    Ok(fields)
}

fn decode_text(decoder: &mut Decoder, hex: &str) -> Fields {
    decode(decoder, &bytes(hex))
        .unwrap()
        .into_iter()
        .map(|(name, value, _)| {
            (
                String::from_utf8(name).unwrap(),
                String::from_utf8(value).unwrap(),
            )
        })
        .collect()
}

fn fields(lines: &[(&str, &str)]) -> Fields {
    lines
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Goal: integers are as RFC 7541, C.1, has them. Method: its three examples, both ways.
#[test]
fn integers_of_the_rfc() {
    for (value, prefix_bits, hex) in [(10, 5, "0a"), (1337, 5, "1f9a0a"), (42, 8, "2a")] {
        let mut out = Vec::new();
        integer::encode(value, prefix_bits, 0, &mut out);
        assert_eq!(out, bytes(hex));
        assert_eq!(integer::decode(&out, prefix_bits), Ok((value, &[][..])));
    }
}

/// Goal: an integer ends, and does not overflow (RFC 7541, 5.1). Method: the largest that is read, one byte
/// more, and zeros without end.
#[test]
fn integers_are_bounded() {
    let largest = [0x1f, 0xff, 0xff, 0xff, 0x7f];
    assert_eq!(
        integer::decode(&largest, 5),
        Ok(((1 << 28) - 1 + 31, &[][..]))
    );
    for above in [
        &[0x1f, 0xff, 0xff, 0xff, 0xff, 0x00][..],
        &[0x1f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
    ] {
        assert_eq!(integer::decode(above, 5), Err(HpackError::IntegerTooLarge));
    }
    assert_eq!(
        integer::decode(&[0x1f, 0x80], 5),
        Err(HpackError::Truncated)
    );
    assert_eq!(integer::decode(&[], 5), Err(HpackError::Truncated));
}

/// Goal: the four representations are read as RFC 7541, C.2, has them. Method: its examples.
#[test]
fn representations_of_the_rfc() {
    for (hex, name, value, never_indexed) in [
        (
            "400a637573746f6d2d6b65790d637573746f6d2d686561646572",
            "custom-key",
            "custom-header",
            false,
        ),
        (
            "040c2f73616d706c652f70617468",
            ":path",
            "/sample/path",
            false,
        ),
        (
            "100870617373776f726406736563726574",
            "password",
            "secret",
            true,
        ),
        ("82", ":method", "GET", false),
    ] {
        let decoded = decode(&mut Decoder::default(), &bytes(hex)).unwrap();
        assert_eq!(
            decoded,
            [(name.into(), value.into(), never_indexed)],
            "{hex}"
        );
    }
}

/// Goal: requests on one connection are read as RFC 7541, C.3 and C.4, have them. Method: its three
/// requests, without and with Huffman codes.
#[test]
fn requests_of_the_rfc() {
    let expected = [
        fields(&[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "www.example.com"),
        ]),
        fields(&[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "www.example.com"),
            ("cache-control", "no-cache"),
        ]),
        fields(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ]),
    ];
    for blocks in [
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
    ] {
        let mut decoder = Decoder::default();
        for (block, expected) in blocks.iter().zip(&expected) {
            assert_eq!(&decode_text(&mut decoder, block), expected);
        }
    }
}

/// Goal: entries are evicted as RFC 7541, C.5 and C.6, have it. Method: its three answers over a table of
/// 256 bytes, without and with Huffman codes.
#[test]
fn responses_of_the_rfc() {
    let first = fields(&[
        (":status", "302"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ]);
    let mut second = first.clone();
    second[0].1 = "307".into();
    let third = fields(&[
        (":status", "200"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        ("location", "https://www.example.com"),
        ("content-encoding", "gzip"),
        (
            "set-cookie",
            "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
        ),
    ]);
    let expected = [first, second, third];
    for blocks in [
        [
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54
             6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
            "4803333037c1c0bf",
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f
             3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076
             657273696f6e3d31",
        ],
        [
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad1718
             63c78f0b97c8e9ae82ae43d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335df
             dfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        ],
    ] {
        let mut decoder = Decoder::default();
        decoder.set_size_limit(256);
        let mut is_first = true;
        for (block, expected) in blocks.iter().zip(&expected) {
            let update = if is_first { "3fe101" } else { "" };
            let block = format!("{update}{}", block.replace(['\n', ' '], ""));
            is_first = false;
            assert_eq!(&decode_text(&mut decoder, &block), expected);
        }
    }
}

/// Goal: Huffman codes are those of RFC 7541, appendix B. Method: strings of appendix C both ways, all bytes
/// by a round trip, and the code of the rarest byte as the appendix prints it.
#[test]
fn huffman_codes() {
    for (text, hex) in [
        ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
        ("no-cache", "a8eb10649cbf"),
        ("custom-key", "25a849e95ba97d7f"),
        (
            "Mon, 21 Oct 2013 20:13:21 GMT",
            "d07abe941054d444a8200595040b8166e082a62d1bff",
        ),
        // 0x3fffffc in 30 bits is line feed; two ones pad it.
        ("\n", "fffffff3"),
    ] {
        let mut code = Vec::new();
        huffman::encode(text.as_bytes(), &mut code);
        assert_eq!(code, bytes(hex), "{text}");
        assert_eq!(huffman::encoded_len(text.as_bytes()), code.len());
        let mut back = Vec::new();
        huffman::decode(&code, &mut back).unwrap();
        assert_eq!(back, text.as_bytes());
    }
    let all: Vec<u8> = (0..=255).collect();
    let (mut code, mut back) = (Vec::new(), Vec::new());
    huffman::encode(&all, &mut code);
    huffman::decode(&code, &mut back).unwrap();
    assert_eq!(back, all);
}

/// Goal: what is no code is refused (RFC 7541, 5.2). Method: EOS, padding of eight bits, padding with a
/// zero; and the longest padding, which is right.
#[test]
fn huffman_errors() {
    let decode = |hex: &str| {
        let mut out = Vec::new();
        huffman::decode(&bytes(hex), &mut out).map(|()| out)
    };
    assert_eq!(decode("fffffffc"), Err(HpackError::HuffmanInvalid), "EOS");
    assert_eq!(decode("ff"), Err(HpackError::HuffmanInvalid), "8 bits");
    assert_eq!(decode("07ff"), Err(HpackError::HuffmanInvalid), "11 bits");
    assert_eq!(decode("00"), Err(HpackError::HuffmanInvalid), "zeros");
    assert_eq!(decode("1e"), Err(HpackError::HuffmanInvalid), "a zero");
    assert_eq!(decode("1f"), Ok(b"a".to_vec()), "3 bits");
    assert_eq!(decode("f8"), Ok(b"&".to_vec()), "none");
    assert_eq!(decode(""), Ok(Vec::new()));
}

/// Goal: each way in which a block cannot be decoded is told. Method: a table, by section.
#[test]
fn errors_by_section() {
    use HpackError::*;
    for (section, hex, error) in [
        ("2.3.3", "80", IndexInvalid),
        ("2.3.3", "be", IndexInvalid),
        ("2.3.3", "7f0001610162", IndexInvalid),
        ("5.1", "ff80808080", IntegerTooLarge),
        ("5.1", "ff", Truncated),
        ("5.2", "400361", Truncated),
        ("5.2", "4001610262", Truncated),
        ("5.2", "4081ff0161", HuffmanInvalid),
        ("6.3", "3fe21f", TableSizeTooLarge),
        ("4.2", "823f01", TableSizeMisplaced),
        ("4.2", "8220", TableSizeMisplaced),
    ] {
        let decoded = decode(&mut Decoder::default(), &bytes(hex));
        assert_eq!(decoded, Err(error), "{section} {hex}");
    }
    // The largest table that may be chosen, and a second update.
    decode(&mut Decoder::default(), &bytes("3fe11f2082")).unwrap();
}

/// Goal: a decoder whose table shrank insists on being told so (RFC 7541, 4.2). Method: a block with the
/// update, and one without.
#[test]
fn table_size_update_is_due() {
    let mut decoder = Decoder::default();
    decoder.set_size_limit(100);
    assert_eq!(
        decode(&mut decoder, &[0x82]),
        Err(HpackError::TableSizeMissing)
    );
    decode(&mut decoder, &bytes("3f4582")).unwrap();
    decode(&mut decoder, &[0x82]).unwrap();
    assert_eq!(
        decode(&mut decoder, &bytes("3f46")),
        Err(HpackError::TableSizeTooLarge)
    );
}

/// Goal: the encoder tells of a smaller table, and of the smallest there was (RFC 7541, 4.2). Method: the
/// size goes down and up between two blocks.
#[test]
fn encoder_tells_sizes() {
    let mut encoder = Encoder::new(4096);
    let mut block = Vec::new();
    encoder.begin(&mut block);
    assert_eq!(block, []);
    encoder.set_size_limit(0);
    encoder.set_size_limit(1 << 20);
    encoder.begin(&mut block);
    assert_eq!(block, bytes("203fe11f"));
    block.clear();
    encoder.begin(&mut block);
    assert_eq!(block, []);
    // A cap below the size that tables begin with is told as well.
    Encoder::new(64).begin(&mut block);
    assert_eq!(block, bytes("3f21"));
}

/// Goal: an entry as large as the table fits, one that is larger empties it (RFC 7541, 4.4). Method: at the
/// size and one above.
#[test]
fn table_is_bounded() {
    let mut table = table::DynamicTable::new(100);
    table.insert(b"a", b"b");
    table.insert(b"name", &[b'v'; 64]);
    assert_eq!(table.len(), 1);
    assert_eq!(table.get(0), Some((&b"name"[..], &[b'v'; 64][..])));
    table.insert(b"name", &[b'v'; 65]);
    assert_eq!(table.len(), 0);
    assert_eq!(table.get(0), None);
    for name in [b"a", b"b", b"c"] {
        table.insert(name, b"");
    }
    assert_eq!(table.len(), 3);
    table.set_size_max(66);
    assert_eq!(table.get(1), Some((&b"b"[..], &b""[..])));
    table.set_size_max(65);
    assert_eq!(table.get(0), Some((&b"c"[..], &b""[..])));
    assert_eq!(table.len(), 1);
}

/// Goal: credentials go into no table, here or further on (RFC 7541, 7.1.3). Method: they are sent twice,
/// and look the same both times.
#[test]
fn credentials_are_never_indexed() {
    for name in [
        "authorization",
        "Cookie",
        "proxy-authorization",
        "set-cookie",
    ] {
        let mut encoder = Encoder::new(4096);
        let mut blocks = [Vec::new(), Vec::new()];
        for block in &mut blocks {
            encoder.encode(FieldLine::new(name.as_bytes(), b"secret"), block);
        }
        assert_eq!(blocks[0], blocks[1], "{name}");
        let decoded = decode(&mut Decoder::default(), &blocks[0]).unwrap();
        let lowercase = name.to_ascii_lowercase().into_bytes();
        assert_eq!(decoded, [(lowercase, b"secret".to_vec(), true)]);
    }
    let mut encoder = Encoder::new(4096);
    let mut block = Vec::new();
    let marked = FieldLine {
        never_indexed: true,
        ..FieldLine::new(b"x-key", b"secret")
    };
    encoder.encode(marked, &mut block);
    let decoded = decode(&mut Decoder::default(), &block).unwrap();
    assert!(decoded[0].2, "the mark of an earlier hop stays");
}

/// Goal: what repeats costs a byte the second time. Method: a request of gRPC, twice.
#[test]
fn repetition_is_indexed() {
    let lines = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "orders.example:8080"),
        (":path", "/example.Orders/Place"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "grpc-go/1.60"),
    ];
    let mut encoder = Encoder::new(4096);
    let mut blocks = [Vec::new(), Vec::new()];
    for block in &mut blocks {
        for (name, value) in lines {
            encoder.encode(FieldLine::new(name.as_bytes(), value.as_bytes()), block);
        }
    }
    assert!(blocks[0].len() > 50);
    assert_eq!(blocks[1].len(), lines.len());
}

fn any_field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, bool)> {
    let name = prop_oneof![
        Just(b":path".to_vec()),
        Just(b"content-type".to_vec()),
        Just(b"cookie".to_vec()),
        Just(b"x-a".to_vec()),
        "[a-z-]{1,20}".prop_map(String::into_bytes),
    ];
    let value = prop_oneof![
        Just(b"/".to_vec()),
        Just(b"application/grpc".to_vec()),
        "[ -~]{0,40}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..200),
    ];
    (name, value, prop::bool::weighted(0.1))
}

proptest! {
    /// Goal: what is encoded is what is decoded, whatever becomes of the tables. Method: random blocks on
    /// one connection, the size of whose table changes between them.
    #[test]
    fn round_trip(
        blocks in prop::collection::vec(
            (prop::collection::vec(any_field(), 0..12), prop::option::of(0usize..600)),
            0..20,
        ),
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::default());
        for (lines, size) in blocks {
            if let Some(size) = size {
                decoder.set_size_limit(size);
                encoder.set_size_limit(size);
            }
            let mut block = Vec::new();
            encoder.begin(&mut block);
            for (name, value, never_indexed) in &lines {
                let (name, value, never_indexed) = (name, value, *never_indexed);
                encoder.encode(FieldLine { name, value, never_indexed }, &mut block);
            }
            let decoded = decode(&mut decoder, &block).unwrap();
            prop_assert_eq!(decoded.len(), lines.len());
            for (decoded, sent) in decoded.iter().zip(&lines) {
                prop_assert_eq!((&decoded.0, &decoded.1), (&sent.0, &sent.1));
                prop_assert!(decoded.2 || !sent.2);
            }
        }
    }

    /// Goal: any text has a code, and no other text has it.
    #[test]
    fn huffman_round_trip(text in prop::collection::vec(any::<u8>(), 0..100)) {
        let (mut code, mut back) = (Vec::new(), Vec::new());
        huffman::encode(&text, &mut code);
        huffman::decode(&code, &mut back).unwrap();
        prop_assert_eq!(back, text);
    }
}

/// Goal: the encoder finds what is in its table, wherever it stands, and by its name if the value is another.
/// Method: tables of every length up to a full one, with entries that were pushed out before; each entry's
/// index against the order in which they came.
#[test]
fn entries_are_found_wherever_they_stand() {
    // 32 and 10 bytes each.
    const ENTRIES: usize = 4096 / 42;
    let field = |number: usize| (format!("x-{number:03}"), format!("v-{number:03}"));
    let mut encoder = Encoder::new(4096);
    let encode = |encoder: &mut Encoder, name: &str, value: &str| {
        let mut out = Vec::new();
        encoder.encode(FieldLine::new(name.as_bytes(), value.as_bytes()), &mut out);
        out
    };
    for newest in 0..3 * ENTRIES {
        let (name, value) = field(newest);
        assert_eq!(encode(&mut encoder, &name, &value)[0], 0x40, "{newest}");
        let oldest = (newest + 1).saturating_sub(ENTRIES);
        for number in oldest..=newest {
            let (name, value) = field(number);
            let mut expected = Vec::new();
            integer::encode(62 + newest - number, 7, 0x80, &mut expected);
            assert_eq!(encode(&mut encoder, &name, &value), expected);
            // A value that is too long for the table leaves it as it is.
            expected.clear();
            integer::encode(62 + newest - number, 4, 0x00, &mut expected);
            assert!(encode(&mut encoder, &name, &"v".repeat(2000)).starts_with(&expected));
        }
    }
}
