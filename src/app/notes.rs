//! What an engine notes, as lines of the log.

use tracing::{debug, info, warn};

use super::stories;
use crate::engine::output::{Note, RegistrationReason};
use crate::engine::permits::Crowded;
use crate::telemetry::Redacted;

/// Writes down what an engine notes.
pub(super) fn log(note: &Note) {
    match note {
        Note::HandedOver(instance) => info!(instance = %Redacted(instance), "handed over"),
        Note::Registration(instance, state, reason, code) => {
            let reason = reason.map(RegistrationReason::as_str);
            info!(instance = %Redacted(instance), state = state.as_str(), reason, code, "registration");
        }
        Note::RegistrarFull(Crowded { destination, need, rate_max }) => {
            let address = Redacted(destination.address);
            warn!(%address, need, rate_max, "no further accounts at this registrar: raise registrars.rate_max");
        }
        Note::CallEnded(call, instance, outcome) => {
            // Its story says the same and more.
            debug!(call = %Redacted(call), instance = %Redacted(instance), outcome = outcome.as_str(), "call counted");
        }
        Note::CallStory(story) => stories::log(story),
        Note::CallsRepeated { instance, call, reason, count } => stories::log_repeated(instance, call, reason, *count),
        Note::PushMisconfigured(provider, reason) => {
            warn!(provider = provider.as_str(), reason, "the push provider refuses us");
        }
        Note::Erased(instance, cause) => info!(instance = %Redacted(instance), cause = cause.as_str(), "erased"),
    }
}
