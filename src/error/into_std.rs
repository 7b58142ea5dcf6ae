//! Errors as those of std, for `?` in a function that returns `std::io::Result`.

use std::io;

use super::Error;
use crate::request::ParseError;

/// Keeps the error as the inner one. Its errno decides on the kind.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = Self::from(error.errno()).kind();
        Self::new(kind, error)
    }
}

/// Keeps the error as the inner one. The kind is [`InvalidInput`](io::ErrorKind::InvalidInput).
impl From<ParseError> for io::Error {
    fn from(error: ParseError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Target;
    use std::io::ErrorKind;
    use std::string::ToString;

    #[test]
    fn an_io_error_has_the_kind_of_the_errno_and_the_text_of_the_error() {
        let parse_error = Target::parse("").unwrap_err();
        let error = Error::from(parse_error);
        let texts = [error.to_string(), parse_error.to_string()];
        for (error, text) in [io::Error::from(error), parse_error.into()]
            .iter()
            .zip(texts)
        {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert_eq!(error.to_string(), text);
        }
    }
}
