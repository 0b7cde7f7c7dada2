//! How an app wants its instance kept: the members `mode`, `hand_over` and `voicemail`, and what it says when it comes to the
//! foreground.

use serde::Deserialize;
use utoipa::ToSchema;

use super::problem::{Kind, Problem};
use crate::engine::input::{CallHandOver, Mode, Parting, Preferences};
use crate::engine::policy::TenantPolicy;

/// The modes.
pub(crate) const MODES: [&str; 3] = ["always", "background", "takeover"];
/// The ways to hand calls over.
pub(crate) const HAND_OVERS: [&str; 2] = ["relay", "reregister"];
/// Where news of the mailbox come from.
pub(crate) const VOICEMAILS: [&str; 2] = ["unsolicited", "subscribe"];
/// What may become of a binding in the foreground, as an app asks for it.
pub(crate) const BINDINGS: [&str; 2] = ["release", "keep"];

/// What is left of a binding when the app comes to the foreground.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Foreground)]
pub(crate) struct ForegroundBody {
    #[schema(schema_with = super::openapi::words::binding)]
    binding: Option<String>,
}

impl ForegroundBody {
    /// What the app asked for.
    pub(crate) fn check(&self) -> Result<Parting, Problem> {
        match self.binding.as_deref() {
            None | Some("release") => Ok(Parting::Release),
            Some("keep") => Ok(Parting::Keep),
            Some(_) => Err(Problem::request("binding", "must be \"release\" or \"keep\"")),
        }
    }
}

/// `present` with the members that were given in the place of its own.
pub(crate) fn preferences(
    present: Preferences,
    mode: Option<&str>,
    hand_over: Option<&str>,
    voicemail: Option<&str>,
) -> Result<Preferences, Problem> {
    Ok(Preferences {
        mode: match mode {
            None => present.mode,
            Some("always") => Mode::Always,
            Some("background") => Mode::Background,
            Some("takeover") => Mode::Takeover,
            Some(_) => {
                return Err(Problem::request("mode", "must be \"always\", \"background\" or \"takeover\""));
            }
        },
        hand_over: match hand_over {
            None => present.hand_over,
            Some("relay") => CallHandOver::Relay,
            Some("reregister") => CallHandOver::Reregister,
            Some(_) => return Err(Problem::request("hand_over", "must be \"relay\" or \"reregister\"")),
        },
        voicemail_subscribe: match voicemail {
            None => present.voicemail_subscribe,
            Some("unsolicited") => false,
            Some("subscribe") => true,
            Some(_) => return Err(Problem::request("voicemail", "must be \"unsolicited\" or \"subscribe\"")),
        },
    })
}

/// Whether a tenant's apps may ask for a mode.
pub(crate) fn mode_allowed(mode: Mode, tenant: Option<&TenantPolicy>) -> Result<(), Problem> {
    let allowed = tenant.map_or(&[][..], |tenant| &tenant.modes);
    if allowed.is_empty() || allowed.contains(&mode) {
        return Ok(());
    }
    let names: Vec<String> = allowed.iter().map(|mode| format!("\"{}\"", mode.as_str())).collect();
    let detail = format!(
        "mode: this tenant's accounts are held in {} alone (\"always\" where it is left out).",
        names.join(", ")
    );
    Err(Problem::new(Kind::Forbidden, detail, "a mode that the tenant may not use").at_path("mode"))
}

/// The names of a mode, a way to hand calls over and a way to hear of voicemail.
pub(crate) fn names(preferences: Preferences) -> (&'static str, &'static str, &'static str) {
    let mode = preferences.mode.as_str();
    let hand_over = match preferences.hand_over {
        CallHandOver::Relay => "relay",
        CallHandOver::Reregister => "reregister",
    };
    (mode, hand_over, if preferences.voicemail_subscribe { "subscribe" } else { "unsolicited" })
}
