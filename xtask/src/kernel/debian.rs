//! Debian's kernels, from the mirror that this machine's own package sources name.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::Kernel;
use crate::command;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Of all flavours the smallest; BPF, initramfs and serial console are built in.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// Returns the kernel's image, downloaded once into `folder`.
pub(super) fn vmlinuz(kernel: Kernel, folder: &Path) -> Result<PathBuf> {
    let image = folder.join("vmlinuz");
    if image.is_file() {
        return Ok(image);
    }
    eprintln!("downloading Debian's kernel {} ({})", kernel.version(), kernel.suite());
    let apt = Apt::prepare(kernel.suite(), folder)?;
    command::run(apt.get().args(["update", "-qq"]))?;
    let package = apt.image_package()?;
    command::run(apt.get().args(["download", "-qq", &package]).current_dir(folder))?;
    unpack(folder, &package)?;
    Ok(image)
}

/// An apt of its own: other suites than the machine's, and no trace in the machine's lists.
struct Apt {
    options: Vec<OsString>,
}

impl Apt {
    fn prepare(suite: &str, folder: &Path) -> Result<Self> {
        let apt = folder.join("apt");
        for part in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.join(part)).with_context(|| format!("create {}", apt.display()))?;
        }
        let sources = apt.join("sources.list");
        let signed =
            if Path::new(KEYRING).is_file() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        fs::write(&sources, format!("deb {signed}{} {suite} main\n", debian_mirror()?))
            .with_context(|| format!("write {}", sources.display()))?;
        let mut options = Vec::new();
        for (key, path) in [
            ("Dir::Etc::sourcelist", sources),
            ("Dir::Etc::sourceparts", PathBuf::from("-")),
            ("Dir::State", apt.join("state")),
            ("Dir::Cache", apt.join("cache")),
        ] {
            let mut option = OsString::from(format!("{key}="));
            option.push(path);
            options.extend(["-o".into(), option]);
        }
        // The unprivileged user of apt cannot write into the target folder.
        options.extend(["-o".into(), "APT::Sandbox::User=root".into()]);
        options.extend(["-o".into(), "Acquire::Languages=none".into()]);
        Ok(Self { options })
    }

    fn get(&self) -> Command {
        let mut apt = command::program("apt-get");
        apt.args(&self.options);
        apt
    }

    /// The package with the kernel, which the meta package depends on.
    fn image_package(&self) -> Result<String> {
        let mut cache = command::program("apt-cache");
        let depends = command::read(cache.args(&self.options).args(["depends", PACKAGE]))?;
        real_package(&depends).with_context(|| format!("{PACKAGE} depends on no kernel"))
    }
}

/// The mirror of Debian's main archive in the machine's configuration of apt.
fn debian_mirror() -> Result<String> {
    let mut apt = command::program("apt-get");
    apt.args(["indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(CODENAME)", "Created-By: Packages"]);
    let targets = command::read(&mut apt).context("ask apt for this machine's package sources")?;
    mirror(&targets).context("this machine's package sources name no mirror of Debian's main archive")
}

fn mirror(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (uri, origin, codename) = (words.next()?, words.next()?, words.next()?);
        // Security updates, backports and the like are other suites, some of them in other archives.
        (origin == "Debian" && !codename.contains('-')).then(|| uri.to_owned())
    })
}

fn real_package(depends: &str) -> Option<String> {
    let packages = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    packages.map(str::to_owned).find(|package| package.starts_with("linux-image-"))
}

fn unpack(folder: &Path, package: &str) -> Result<()> {
    let downloaded = files(folder, package)?;
    let [archive] = downloaded.as_slice() else { bail!("{} files of {package}", downloaded.len()) };
    let unpacked = folder.join("unpacked");
    command::run(command::program("dpkg-deb").arg("--extract").arg(archive).arg(&unpacked))?;
    let images = files(&unpacked.join("boot"), "vmlinuz-")?;
    let [image] = images.as_slice() else { bail!("{} kernels in {package}", images.len()) };
    ensure!(image.is_file(), "{} is no file", image.display());
    fs::rename(image, folder.join("vmlinuz")).context("keep the kernel")?;
    fs::remove_dir_all(&unpacked).context("remove what else was in the package")?;
    fs::remove_file(archive).context("remove the package")
}

fn files(folder: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_main_archive() {
        let targets = "http://a/debian-security/ Debian bookworm-security\nhttp://b/x/ Other bookworm\n\
                       http://c/debian/ Debian bookworm\n";
        assert_eq!(mirror(targets).as_deref(), Some("http://c/debian/"));
        assert_eq!(mirror("http://a/ubuntu/ Ubuntu noble\n"), None);
    }

    #[test]
    fn the_meta_package_leads_to_the_kernel() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-44-cloud-amd64\n";
        assert_eq!(real_package(depends).as_deref(), Some("linux-image-6.1.0-44-cloud-amd64"));
    }
}
