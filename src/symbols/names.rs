//! The answers of the kernel's symbols about one name.

use rustix::io::Result;

use super::kallsyms::{Code, Place, for_each_symbol, place_of};
use super::similar::Meant;
use crate::request::{KprobeOpts, Target, TargetBuf};

/// Holds the entries of `/proc/kallsyms` under the name of a target.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    /// The number of functions that have the name.
    pub(crate) functions: usize,
    /// The first of these functions, and its address. The address is 0 if the kernel hides
    /// addresses.
    pub(crate) function: Option<(TargetBuf, u64)>,
    /// The type of a symbol that has this name and is not a function.
    pub(crate) data: Option<u8>,
    /// The functions that may have been meant, and those that have the name.
    pub(crate) meant: Meant,
    /// Whether the requested module is certainly loaded.
    pub(crate) has_module: bool,
    /// Whether the function belongs to boot code that has been freed.
    pub(crate) is_init: bool,
}

impl Symbols {
    /// Returns the address of the first function, unless the kernel hides it.
    pub(crate) fn address(&self) -> Option<u64> {
        let (_, address) = self.function.as_ref()?;
        (*address != 0).then_some(*address)
    }

    /// Returns the likeliest function, if it has the very name: one that was asked for, or one in
    /// another module, or in the kernel itself.
    pub(crate) fn named(&self) -> Option<&TargetBuf> {
        let first = self.meant.first()?;
        first.has_name().then_some(&first.function)
    }

    /// Looks for a function by its name.
    // This has its own frame, as `Kernel::survey` has.
    #[inline(never)]
    pub(crate) fn of(target: &Target<'_>) -> Result<Self> {
        let mut found = Self::default();
        let mut code = Code::default();
        let mut kind = 0;
        for_each_symbol(&mut |symbol| {
            code.see(symbol);
            found.has_module |= symbol.module.is_some() && symbol.module == target.module();
            if symbol.is(target) {
                found.functions += 1;
                kind = symbol.kind;
                if found.function.is_none() {
                    found.function = symbol
                        .target()
                        .map(|target| (target.into(), symbol.address));
                }
            } else if !symbol.is_function() && target.function() == Some(symbol.name) {
                found.data = found.data.or(Some(symbol.kind));
            }
            if symbol.is_function() {
                found.meant.see(target, symbol);
            }
        })?;
        if let (1, Some((function, address @ 1..))) = (found.functions, &found.function) {
            found.is_init = code.init.contains(address);
            // Linux 7.3 gives some data the type of code. But that data lies after all of the
            // kernel's code.
            let is_behind = code.end != 0 && *address >= code.end && !found.is_init;
            if is_behind && function.as_target().module().is_none() {
                found.functions = 0;
                found.function = None;
                found.data = Some(kind);
            }
        }
        Ok(found)
    }
}

/// Finds where a probe would be: at an address, or at an offset from the start of a function. Puts
/// the function that contains this place into `function`.
pub(crate) fn place(
    target: &Target<'_>,
    opts: &KprobeOpts,
    symbols: Option<&Symbols>,
    function: &mut Option<TargetBuf>,
) -> Result<Place> {
    let only = symbols.filter(|symbols| symbols.functions == 1);
    let Some(start) = target.as_address().or_else(|| only?.address()) else {
        return Ok(Place::Untold);
    };
    place_of(start.checked_add(opts.offset), function)
}
