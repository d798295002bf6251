use super::{number, range, sparkline};

#[test]
fn numbers_are_short_and_grouped() {
    for (value, text) in [
        (0.0, "0.00"),
        (3.456, "3.46"),
        (31.42, "31.4"),
        (999.94, "999.9"),
        (1000.0, "1,000"),
        (1_234_567.8, "1,234,568"),
        (-12.0, "-12.0"),
        (-1234.0, "-1,234"),
    ] {
        assert_eq!(number(value), text);
    }
}

#[test]
fn sparklines_start_at_zero() {
    let line = [Some(8.0), Some(4.0), None, Some(1.0), Some(0.0), None].as_slice();
    assert_eq!(sparkline(line), "█▄ ▁▁");
    assert_eq!(sparkline(&[Some(0.0)]), "▁");
    assert_eq!(sparkline(&[None, None]), "");
    assert_eq!(sparkline(&[Some(100.0), Some(101.0)]), "██");
}

#[test]
fn what_was_asked_is_said_where_it_is_not_what_came() {
    assert_eq!(range(64, 64, Some(64)), "64 each");
    assert_eq!(range(64, 64, Some(65)), "64 each, asked 65");
    assert_eq!(range(3, 1200, Some(64)), "3 to 1,200 each, asked 64");
    assert_eq!(range(3, 9, None), "3 to 9 each");
}
