use proptest::prelude::*;

use super::*;

/// An array as numpy writes it.
pub(crate) fn written(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [MAGIC, &[1, 0], &length, header.as_bytes(), data].concat()
}

fn values(descr: &str, shape: &str, data: &[u8]) -> Result<Vec<f64>, NpyError> {
    read(&written(descr, shape, data)).map(|array| array.values)
}

#[test]
fn every_kind_of_number_is_read() {
    assert_eq!(values("<f8", "(1,)", &1.5_f64.to_le_bytes()), Ok(vec![1.5]));
    assert_eq!(values(">f8", "(1,)", &1.5_f64.to_be_bytes()), Ok(vec![1.5]));
    assert_eq!(values("<f4", "(1,)", &(-2.5_f32).to_le_bytes()), Ok(vec![-2.5]));
    assert_eq!(values("<i8", "(2,)", &[[7, 0, 0, 0, 0, 0, 0, 0], [255; 8]].concat()), Ok(vec![7.0, -1.0]));
    assert_eq!(values(">i2", "(1,)", &(-300_i16).to_be_bytes()), Ok(vec![-300.0]));
    assert_eq!(values("<u4", "(1,)", &u32::MAX.to_le_bytes()), Ok(vec![f64::from(u32::MAX)]));
    assert_eq!(values("|u1", "(3,)", &[1, 2, 255]), Ok(vec![1.0, 2.0, 255.0]));
    assert_eq!(values("|i1", "()", &[255]), Ok(vec![-1.0]));
    let two = read(&written("|u1", "(2, 3)", &[1, 2, 3, 4, 5, 6])).unwrap();
    assert_eq!((two.shape, two.values.len()), (vec![2, 3], 6));
    assert_eq!(values("<f8", "(0,)", &[]), Ok(vec![]));
}

#[test]
fn what_is_no_table_is_refused() {
    let is_type = |result: Result<Vec<f64>, NpyError>| matches!(result, Err(NpyError::Type(_)));
    for descr in ["|O", "<U5", "<c8", "<f2", "<f9", "|b1", "|f8", "f8", "", "<f16", "<M8[ns]", "<i3"] {
        assert!(is_type(values(descr, "(1,)", &[0; 8])), "{descr}");
    }
    let record = b"{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }";
    let bytes = [MAGIC, &[1, 0, record.len() as u8, 0], record, &[0; 8]].concat();
    assert!(is_type(read(&bytes).map(|array| array.values)));
    assert!(matches!(values("<f8", "(1000001,)", &[0; 8]), Err(NpyError::Shape(..))));
    assert!(matches!(values("<f8", "(18446744073709551615, 2)", &[0; 8]), Err(NpyError::Shape(..))));
    assert!(matches!(values("<f8", "(99999999999999999999,)", &[0; 8]), Err(NpyError::Header(_))));
    assert!(matches!(values("<f8", "(1, 1, 1)", &[0; 8]), Err(NpyError::Shape(..))));
    assert_eq!(values("<f8", "(2,)", &[0; 8]), Err(NpyError::Size(16, 8)));
    assert_eq!(values("<f8", "(1,)", &[0; 9]), Err(NpyError::Size(8, 9)));
    let fortran = "{'descr': '<f8', 'fortran_order': True, 'shape': (1, 1), }";
    let bytes = [MAGIC, &[1, 0, fortran.len() as u8, 0], fortran.as_bytes(), &[0; 8]].concat();
    assert_eq!(read(&bytes).unwrap_err(), NpyError::Order);
}

#[test]
fn a_header_that_makes_no_sense_is_refused() {
    let with = |header: &str| {
        read(&[MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat())
    };
    for header in [
        "",
        "{",
        "{}",
        "{'descr'}",
        "{'descr': }",
        "{'descr': '<f8', 'fortran_order': Maybe, 'shape': (0,)}",
        "{'descr': '<f8', 'fortran_order': False}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (0",
        "{'descr': '<f8', 'other': False, 'shape': (0,)}",
        "{'descr': '<f8",
    ] {
        assert!(matches!(with(header), Err(NpyError::Header(_))), "{header:?}");
    }
    assert!(with("{\"shape\": (0,), 'descr': '<f8', 'fortran_order': False}").is_ok(), "in any order");
    assert_eq!(read(b"PK").unwrap_err(), NpyError::Magic);
    assert_eq!(read(&[MAGIC, &[9, 0, 0, 0]].concat()).unwrap_err(), NpyError::Version(9, 0));
    let long = [MAGIC, &[2, 0], &u32::MAX.to_le_bytes(), b"{"].concat();
    assert!(matches!(read(&long), Err(NpyError::Header(_))));
}

proptest! {
    /// Whatever the bytes: an answer, never a panic.
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
        let _ = read(&[MAGIC, &[1, 0, 60, 0], &bytes].concat());
    }

    /// What is written is read, whatever the numbers; a cut anywhere is told.
    #[test]
    fn numbers_come_back(numbers in proptest::collection::vec(-1e300_f64..1e300, 0..40), cut in 0_usize..500) {
        let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let bytes = written("<f8", &format!("({},)", numbers.len()), &data);
        prop_assert_eq!(read(&bytes).unwrap().values, numbers);
        if cut < bytes.len() {
            prop_assert!(read(&bytes[..cut]).is_err());
        }
    }
}
