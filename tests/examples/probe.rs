//! x
fn main() {
    let path = std::env::args().nth(1).unwrap();
    let mut k = e2e::prog_test::kernel::Kernel::load_from(std::path::Path::new(&path)).unwrap();
    for c in e2e::prog_test::cost::measure_in(&mut k).unwrap() {
        println!("{:40} {:6} {:6}", c.name, c.ns, c.over_empty_ns);
    }
    let f = e2e::prog_test::frames::ethernet(&e2e::prog_test::frames::ipv4(
        e2e::prog_test::mesh::address("10.0.0.2"),
        e2e::prog_test::mesh::address("10.0.0.1"),
        17,
        [0; 4],
        &e2e::prog_test::frames::udp(1, 2),
    ));
    for n in [
        "test_empty",
        "p_control",
        "p_ktime",
        "p_jiffies",
        "p_scratch",
        "p_settings",
        "p_counter",
        "p_load20",
        "p_flow",
        "p_type",
        "p_encap",
        "p_store",
    ] {
        let Ok(_) = k.repeat(n, &f, [0; 5], 20) else { continue };
        let b = (0..5).map(|_| k.repeat(n, &f, [0; 5], 200000).unwrap().ns).min().unwrap();
        println!("{n:12} {b}");
    }
}
