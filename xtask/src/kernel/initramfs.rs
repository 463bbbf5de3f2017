//! The whole user space of the machine: a cpio archive with one program and the object.

use anyhow::{Context as _, Result};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// Major and minor number of the console, which the kernel opens before it starts the program.
const CONSOLE: (u32, u32) = (5, 1);

/// An archive in the format that the kernel reads ("newc").
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

/// Packs the loader as `/init`, and the object beside it.
pub(super) fn pack(loader: &[u8], object: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys"] {
        archive.add(folder, DIRECTORY, (0, 0), &[])?;
    }
    archive.add("dev/console", CHARACTER_DEVICE, CONSOLE, &[])?;
    archive.add("init", PROGRAM, (0, 0), loader)?;
    archive.add("outrigger.bpf.o", FILE, (0, 0), object)?;
    archive.add("TRAILER!!!", 0, (0, 0), &[])?;
    Ok(archive.bytes)
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size =
            u32::try_from(content.len()).with_context(|| format!("{name} is too large for an initramfs"))?;
        let name_size = u32::try_from(name.len() + 1).context("name is too long")?;
        let (uid, gid, links, time) = (0, 0, 1, 0);
        let (file_system, checksum) = ((0, 0), 0);
        self.bytes.extend_from_slice(b"070701");
        for field in [
            self.entries,
            mode,
            uid,
            gid,
            links,
            time,
            size,
            file_system.0,
            file_system.1,
            device.0,
            device.1,
            name_size,
            checksum,
        ] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
        Ok(())
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_named() {
        let mut archive = Archive::default();
        archive.add("init", PROGRAM, (0, 0), b"12345").unwrap();
        let text = String::from_utf8(archive.bytes).unwrap();
        assert!(text.starts_with("07070100000001000081ed"), "{text}");
        // 110 bytes of header, the name with its zero, padding; then the content, padded.
        assert_eq!(text.get(110..), Some("init\0\0".to_owned() + "12345\0\0\0").as_deref());
    }
}
