use std::io::Write as _;

use flate2::{Compression, write::DeflateEncoder};
use proptest::prelude::*;
use rawzip::ZipArchiveWriter;

use super::*;

/// An archive of members, stored or deflated.
fn archive(members: &[(&str, &[u8])], deflated: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut archive = ZipArchiveWriter::new(&mut bytes);
    for (name, data) in members {
        let method = if deflated { CompressionMethod::DEFLATE } else { CompressionMethod::STORE };
        let (mut entry, config) = archive.new_file(name).compression_method(method).start().unwrap();
        let told = if deflated {
            let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::default()));
            writer.write_all(data).unwrap();
            let (encoder, told) = writer.finish().unwrap();
            encoder.finish().unwrap();
            told
        } else {
            let mut writer = config.wrap(&mut entry);
            writer.write_all(data).unwrap();
            writer.finish().unwrap().1
        };
        entry.finish(told).unwrap();
    }
    archive.finish().unwrap();
    bytes
}

fn array(numbers: &[f64]) -> Vec<u8> {
    let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    npy::tests::written("<f8", &format!("({},)", numbers.len()), &data)
}

#[test]
fn known_arrays_are_read_and_others_only_named() {
    let members: [(&str, &[u8]); 3] = [
        ("prefill_isl.npy", &array(&[1.0, 2.0])),
        ("code.npy", b"\x80\x04 a pickle"),
        ("z_itl.npy", &array(&[3.5])),
    ];
    for deflated in [false, true] {
        let arrays = read(&archive(&members, deflated)).unwrap();
        assert_eq!(arrays.need("prefill_isl").unwrap(), [1.0, 2.0]);
        assert_eq!(arrays.need("z_itl").unwrap(), [3.5]);
        assert_eq!(arrays.names(), "prefill_isl, code, z_itl");
        assert!(arrays.need("x_kv_usage").unwrap_err().to_string().contains("prefill_isl, code, z_itl"));
    }
}

#[test]
fn what_unpacks_to_too_much_is_refused_while_it_unpacks() {
    let zeros = vec![0_u8; MOST_UNPACKED as usize + 1];
    let bomb = archive(&[("prefill_isl.npy", &zeros)], true);
    assert!(bomb.len() < 20_000, "{}", bomb.len());
    assert!(matches!(read(&bomb), Err(NpzError::Large { .. })));
    let names: Vec<String> = (0..300).map(|n| format!("a{n}.npy")).collect();
    let members: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    assert!(matches!(read(&archive(&members, false)), Err(NpzError::Members(_))));
}

#[test]
fn a_name_that_is_there_twice_is_refused() {
    let one = array(&[1.0]);
    let twice = archive(&[("z_itl.npy", &one), ("z_itl.npy", &one)], false);
    assert!(matches!(read(&twice), Err(NpzError::Twice(_))));
}

#[test]
fn a_wrong_array_is_told_with_its_name() {
    let error = |data: &[u8]| read(&archive(&[("z_itl.npy", data)], false)).unwrap_err().to_string();
    assert!(error(b"").contains("z_itl.npy"));
    let objects = npy::tests::written("|O", "(1,)", &[0; 8]);
    assert!(error(&objects).contains("type |O"), "{}", error(&objects));
    let huge = npy::tests::written("<f8", "(4000000000,)", &[0; 8]);
    assert!(error(&huge).contains("4000000000"), "{}", error(&huge));
}

proptest! {
    /// Cut anywhere or with any byte changed, an archive is read or refused, and never panics.
    #[test]
    fn damage_is_answered(cut in 0_usize..2_000, place in 0_usize..2_000, byte in any::<u8>(), deflated in any::<bool>()) {
        let mut bytes = archive(&[("z_itl.npy", &array(&[1.0; 30])), ("prefill_isl.npy", &array(&[2.0; 9]))], deflated);
        prop_assert!(read(&bytes[..cut.min(bytes.len() - 1)]).is_err());
        let place = place % bytes.len();
        bytes[place] = byte;
        if let Ok(arrays) = read(&bytes) {
            // A changed value does not get through: members carry a checksum. A changed name may.
            for name in ["z_itl", "prefill_isl"] {
                if let Some(array) = arrays.get(name) {
                    prop_assert!(array.values.iter().all(|value| [1.0, 2.0].contains(value)));
                }
            }
        }
    }
}
