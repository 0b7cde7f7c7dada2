//! A phone that registers at its PBX through us, with push parameters in its Contact (RFC 8599).

use reveille::sip::Method;
use reveille::sip::digest::{Secret, Signed};

use super::Phone;
use crate::sip_text::Request;
use crate::world::build::DOMAIN;

/// What the Call-IDs of phones' own REGISTERs begin with.
pub const OWN_REGISTER: &str = "register-";
/// What the token for all but calls begins with; the token for calls follows.
pub const OTHER_TOKEN: &str = "ffff";

impl Phone {
    /// Registers through us from now on, and hands nothing over.
    pub fn go_through(&mut self, password: String) {
        self.through = Some(password);
        self.token = self.name.bytes().map(|byte| format!("{byte:02x}")).collect();
    }

    pub(super) fn register_through(&mut self, expires: u32) {
        let password = self.through.clone().expect("a password");
        let target = format!("sip:{DOMAIN}");
        let aor = format!("sip:{}@{DOMAIN}", self.name);
        let mut extra =
            vec![("Contact".to_owned(), format!("<{}>", self.contact())), ("Expires".to_owned(), expires.to_string())];
        if let Some(session) = &mut self.session {
            let secret = Secret::Password(password.as_bytes());
            let credentials = session.authorize(&self.name, secret, Signed::bare("REGISTER", &target), "cn0nce");
            extra.push(("Authorization".to_owned(), String::from_utf8(credentials).expect("made of texts")));
        }
        let request = Request {
            method: Method::Register,
            uri: &target,
            transport: self.transport,
            sent_by: self.host().to_owned(),
            branch: format!("z9hG4bKreg{}x{}", self.number, self.minted),
            routes: &[format!("<sip:{};lr>", self.edge)],
            from: format!("<{aor}>;tag=phone{}", self.minted),
            to: format!("<{aor}>"),
            call_id: &format!("{OWN_REGISTER}{}", self.name),
            cseq: self.cseq,
            extra,
            body: b"",
        };
        let message = request.write();
        self.transactions.request(&message, self.path(), self.now);
    }

    pub(super) fn push_params(&self) -> String {
        let token = &self.token;
        format!(
            "pn-provider=apns;pn-param=ABCDE12345.com.example.phone.voip%26remote;\
             pn-prid={token}:voip%26{OTHER_TOKEN}{token}:remote"
        )
    }
}
