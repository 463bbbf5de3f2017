use std::os::unix::fs::symlink;

use super::*;

struct Fixture {
    root: tempfile::TempDir,
    folder: Folder,
    now: Instant,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("m")).unwrap();
        let folder = Folder::new(root.path().join("m"), BTreeSet::new());
        Self { root, folder, now: Instant::now() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("m").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// A look, and then what happened in words.
    fn look(&mut self) -> Vec<String> {
        self.look_with(&Noticed::default())
    }

    fn look_with(&mut self, noticed: &Noticed) -> Vec<String> {
        let scan = self.folder.scan(self.now, noticed).unwrap();
        let shown = |change| match change {
            FileChange::Text(name, bytes) => format!("{name}={}", String::from_utf8(bytes).unwrap()),
            FileChange::Object(..) => unreachable!("a folder has files"),
            FileChange::Unreadable(name, _) => format!("{name}!"),
            FileChange::Gone(name) => format!("{name} gone"),
        };
        let mut shown: Vec<_> = scan.changes.into_iter().map(shown).collect();
        shown.extend(scan.again_in.map(|after| format!("again in {}", after.as_millis())));
        shown
    }

    fn wait(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
    }
}

fn nothing() -> Vec<String> {
    Vec::new()
}

#[test]
fn manifests_of_all_levels_are_read_and_nothing_else() {
    let mut f = Fixture::new();
    fs::create_dir_all(f.path("team/blue")).unwrap();
    fs::create_dir(f.path(".git")).unwrap();
    for name in ["a.yaml", "team/blue/b.yml"] {
        f.write(name, "1");
    }
    for name in ["c.json", ".d.yaml", ".e.yaml.swp", "f.yaml~", "#g.yaml#", "4913", ".git/h.yaml"] {
        f.write(name, "1");
    }
    assert_eq!(f.look(), ["a.yaml=1", "team/blue/b.yml=1"]);
    assert_eq!(f.look(), nothing());
}

#[test]
fn a_saved_file_is_read_again_however_it_is_saved() {
    let mut f = Fixture::new();
    f.write("a.yaml", "1");
    f.look();
    f.write("a.yaml", "22");
    assert_eq!(f.look(), ["a.yaml=22"]);
    f.write(".a.yaml.tmp", "33");
    fs::rename(f.path(".a.yaml.tmp"), f.path("a.yaml")).unwrap();
    assert_eq!(f.look(), ["a.yaml=33"]);
    let touched = Noticed { touched: BTreeSet::from([f.path("a.yaml")]), ..Noticed::default() };
    assert_eq!(f.look_with(&touched), ["a.yaml=33"]);
}

#[test]
fn a_file_is_gone_only_after_a_while() {
    let mut f = Fixture::new();
    f.write("a.yaml", "1");
    f.look();
    fs::remove_file(f.path("a.yaml")).unwrap();
    assert_eq!(f.look(), ["again in 40"]);
    f.wait(30);
    assert_eq!(f.look(), ["again in 10"]);
    f.write("a.yaml", "2");
    f.wait(30);
    assert_eq!(f.look(), ["a.yaml=2"]);
    fs::remove_file(f.path("a.yaml")).unwrap();
    f.look();
    f.wait(40);
    assert_eq!(f.look(), ["a.yaml gone"]);
    assert_eq!(f.look(), nothing());
}

#[test]
fn a_file_that_is_being_written_is_waited_for() {
    let mut f = Fixture::new();
    f.write("a.yaml", "1");
    f.look();
    f.write("a.yaml", "");
    let noticed = Noticed { writing: BTreeMap::from([(f.path("a.yaml"), f.now)]), ..Noticed::default() };
    assert_eq!(f.look_with(&noticed), ["again in 1000"]);
    f.wait(400);
    assert_eq!(f.look_with(&noticed), ["again in 600"]);
    f.write("a.yaml", "2");
    assert_eq!(f.look(), ["a.yaml=2"]);
    f.write("a.yaml", "33");
    f.wait(600);
    assert_eq!(f.look_with(&noticed), ["a.yaml=33"]);
}

#[test]
fn a_mounted_config_map_is_read_through_its_links() {
    let mut f = Fixture::new();
    for (version, text) in [("..1", "1"), ("..2", "22")] {
        fs::create_dir(f.path(version)).unwrap();
        f.write(&format!("{version}/a.yaml"), text);
    }
    symlink("..1", f.path("..data")).unwrap();
    symlink("..data/a.yaml", f.path("a.yaml")).unwrap();
    assert_eq!(f.look(), ["a.yaml=1"]);
    symlink("..2", f.path("..tmp")).unwrap();
    fs::rename(f.path("..tmp"), f.path("..data")).unwrap();
    assert_eq!(f.look(), ["a.yaml=22"]);
}

#[test]
fn a_folder_that_vanishes_takes_nothing_along() {
    let mut f = Fixture::new();
    f.write("a.yaml", "1");
    f.look();
    let (here, away) = (f.root.path().join("m"), f.root.path().join("away"));
    fs::rename(&here, &away).unwrap();
    let error = f.folder.scan(f.now, &Noticed::default()).unwrap_err();
    assert!(error.to_string().contains(&here.display().to_string()), "{error}");
    f.wait(10_000);
    f.folder.scan(f.now, &Noticed::default()).unwrap_err();
    fs::create_dir(&here).unwrap();
    f.write("a.yaml", "22");
    let scan = f.folder.scan(f.now, &Noticed::default()).unwrap();
    assert!(scan.replaced);
    assert_eq!(scan.changes, [FileChange::Text("a.yaml".into(), b"22".to_vec())]);
}

#[test]
fn links_that_lead_back_or_nowhere_do_no_harm() {
    let mut f = Fixture::new();
    f.write("a.yaml", "1");
    symlink(".", f.path("loop")).unwrap();
    symlink("nowhere", f.path("b.yaml")).unwrap();
    let found = f.look();
    assert!(found.contains(&"a.yaml=1".to_owned()), "{found:?}");
    assert!(!found.iter().any(|change| change.starts_with("b.yaml")), "{found:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_reported_once() {
    let mut f = Fixture::new();
    f.write("a.yaml", "1");
    f.look();
    fs::remove_file(f.path("a.yaml")).unwrap();
    symlink("a.yaml", f.path("a.yaml")).unwrap();
    assert_eq!(f.look(), ["a.yaml!"]);
    assert_eq!(f.look(), nothing());
    fs::remove_file(f.path("a.yaml")).unwrap();
    f.write("a.yaml", "1");
    assert_eq!(f.look(), ["a.yaml=1"]);
}

#[test]
fn a_folder_below_that_cannot_be_listed_is_reported_and_its_files_stay() {
    let mut f = Fixture::new();
    f.folder = Folder::new(f.path(""), BTreeSet::from(["team/a.yaml".to_owned(), "gone.yaml".to_owned()]));
    symlink("team", f.path("team")).unwrap();
    assert_eq!(f.look(), ["team!", "team/a.yaml!"]);
    assert_eq!(f.look(), nothing());
    fs::remove_file(f.path("team")).unwrap();
    fs::create_dir(f.path("team")).unwrap();
    f.write("team/a.yaml", "1");
    assert_eq!(f.look(), ["team/a.yaml=1", "again in 40"]);
    f.wait(40);
    assert_eq!(f.look(), ["team gone"]);
}
