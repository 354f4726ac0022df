//! The one answer a client of the binary protocol gets: a well-formed error.
//!
//! Such a client sends a request with a length and waits for a reply with a length; a line of text
//! would leave it waiting, in PHP's case for the whole page.

use nom::bytes::complete::{tag, take};
use nom::number::complete::u8 as byte;
use nom::{IResult, Parser};

/// What every binary request begins with.
pub(super) const REQUEST_MAGIC: u8 = 0x80;
/// Bytes before anything that differs between commands.
pub(super) const HEADER: usize = 24;

const RESPONSE_MAGIC: u8 = 0x81;
const UNKNOWN_COMMAND: u16 = 0x0081;
const TEXT: &[u8] = b"Unknown command";

/// A request that will not be served; what is needed to say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinaryRequest {
    opcode: u8,
    /// The client's own mark, returned as it came.
    opaque: [u8; 4],
}

impl BinaryRequest {
    /// Reads a header (memcached's protocol-binary.txt, "Packet structure").
    pub(super) fn read(input: &[u8]) -> Option<Self> {
        let mut header = (tag(&[REQUEST_MAGIC][..]), byte, take(10usize), take(4usize));
        let parsed: IResult<&[u8], _> = header.parse(input);
        let (_, (_, opcode, _, opaque)) = parsed.ok()?;
        Some(Self { opcode, opaque: opaque.try_into().ok()? })
    }

    /// Writes the refusal.
    pub fn refuse(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[RESPONSE_MAGIC, self.opcode]);
        // No key, no extras, no data type.
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&UNKNOWN_COMMAND.to_be_bytes());
        out.extend_from_slice(&(TEXT.len() as u32).to_be_bytes());
        out.extend_from_slice(&self.opaque);
        // No CAS unique.
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(TEXT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_opcode_and_the_opaque_of_its_request() {
        let mut header = [0; HEADER];
        header[0] = REQUEST_MAGIC;
        header[1] = 0x0a;
        header[12..16].copy_from_slice(b"mark");
        let mut out = Vec::new();
        BinaryRequest::read(&header).unwrap().refuse(&mut out);
        assert_eq!(out[..2], [0x81, 0x0a]);
        assert_eq!(out[6..8], [0x00, 0x81]);
        assert_eq!(&out[12..16], b"mark");
        let length = u32::from_be_bytes(out[8..12].try_into().unwrap());
        assert_eq!(out.len(), HEADER + length as usize);
    }
}
