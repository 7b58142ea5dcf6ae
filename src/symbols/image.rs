//! The parts of the kernel's image: code, code of the boot, and data.

/// Follows the parts of the kernel's image through the lines, which are in the order of addresses.
///
/// Code of the boot is gone, and a function there cannot be probed. Linux 7.3 gives some data the
/// type of code, but that data lies after all of the kernel's code.
#[derive(Default)]
pub(super) struct Image {
    is_init: bool,
    is_past_code: bool,
}

impl Image {
    /// The names of the symbols that are the bounds of these parts.
    pub(super) const NAMES: [&[u8]; 3] = [b"_sinittext", b"_einittext", b"_etext"];

    pub(super) fn see(&mut self, name: &[u8]) {
        match name {
            b"_sinittext" => self.is_init = true,
            b"_einittext" => self.is_init = false,
            b"_etext" => self.is_past_code = true,
            _ => {}
        }
    }

    pub(super) const fn is_code(&self) -> bool {
        !self.is_init && !self.is_past_code
    }

    /// Returns whether the symbols are those of the code of the boot.
    pub(super) const fn is_init(&self) -> bool {
        self.is_init
    }
}
