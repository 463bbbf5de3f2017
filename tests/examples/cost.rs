//! x
fn main() {
    for c in e2e::prog_test::measure().unwrap() {
        println!("{:40} {:6} {:6}", c.name, c.ns, c.over_empty_ns);
    }
}
