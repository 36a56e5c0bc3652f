//! The body of a response with a whole image, as it arrives.

use crate::error::Result;
use crate::job::JobControl;
use crate::storage::remote::Terms;

use super::client::Answer;
use super::connection::Piece;
use super::head::Framing;

/// What remains to be received.
#[derive(Debug)]
pub(super) struct Flow(Answer);

impl Flow {
    pub(super) fn new(answer: Answer) -> Self {
        Self(answer)
    }

    /// The total length, if the server states it.
    pub(super) fn len(&self) -> Option<u64> {
        match self.0.head.framing {
            Framing::Length(len) => Some(len),
            _ => None,
        }
    }

    /// Fills `buf`; fewer bytes only at the end. A server that sends a byte now and then times out too.
    ///
    /// # Errors
    /// Errors of the connection, or of what the server sends.
    pub(super) fn fill(
        &mut self,
        buf: &mut [u8],
        terms: &Terms,
        control: &JobControl,
    ) -> Result<usize> {
        let over = terms.body_end(buf.len() as u64);
        let mut filled = 0;
        while let Some(room) = buf.get_mut(filled..).filter(|room| !room.is_empty()) {
            let wait = terms.wait(control).until(over);
            let read = self.0.connection.read(&mut self.0.body, room, wait);
            match read.map_err(|error| terms.silent(error, control))? {
                Piece::Bytes(n) => filled += n,
                Piece::End => break,
            }
        }
        Ok(filled)
    }
}
