use super::{Direction, Reason};

#[test]
fn numbers_lead_back_to_their_reasons() {
    for reason in Reason::ALL {
        assert_eq!(Reason::from_u8(reason.number()), Some(*reason));
        assert!(reason.number() < 64, "there are 64 counters for each hook");
    }
    assert_eq!(Reason::from_u8(63), None);
    assert_eq!(Direction::from_u8(1), Some(Direction::Egress));
    assert!(Reason::Audited.passes() && !Reason::PolicyDenied.passes());
}

#[test]
fn the_documentation_lists_every_reason() {
    let text = include_str!("../../../../docs/datapath.md");
    let (_, table) = text.split_once("## Reasons").unwrap();
    let (table, _) = table.split_once("## Limits").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let documented: Vec<_> = rows
        .map(|row| {
            let mut cells = row.split('|').skip(1).map(|cell| cell.trim().trim_matches('`').to_owned());
            (cells.next().unwrap(), cells.next().unwrap())
        })
        .collect();
    let known: Vec<_> =
        Reason::ALL.iter().map(|reason| (reason.number().to_string(), reason.name().to_owned())).collect();
    assert_eq!(documented, known);
}
