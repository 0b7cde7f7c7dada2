//! The messages, each with the verdict of its RFC.

/// What a stateful proxy does with a message before it looks for the callee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Goes on.
    Process,
    /// Answers with this status.
    Refuse(u16),
    /// Says nothing.
    Drop,
}

/// One message of an RFC.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) section: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) bytes: &'static [u8],
}

macro_rules! cases {
    ($directory:literal: $($name:literal $section:literal $verdict:expr;)+) => {
        &[$(Case {
            name: $name,
            section: $section,
            verdict: $verdict,
            bytes: include_bytes!(concat!($directory, "/", $name, ".dat")),
        },)+]
    };
}

use Verdict::{Drop, Process, Refuse};

pub(crate) static RFC_4475: &[Case] = cases! { "rfc4475":
    // Valid.
    "wsinv" "3.1.1.1" Process;
    "intmeth" "3.1.1.2" Process;
    "esc01" "3.1.1.3" Process;
    "escnull" "3.1.1.4" Process;
    "esc02" "3.1.1.5" Process;
    "lwsdisp" "3.1.1.6" Process;
    "longreq" "3.1.1.7" Process;
    "dblreq" "3.1.1.8" Process;
    "semiuri" "3.1.1.9" Process;
    "transports" "3.1.1.10" Process;
    "mpart01" "3.1.1.11" Process;
    "unreason" "3.1.1.12" Process;
    "noreason" "3.1.1.13" Process;
    // Invalid.
    "badinv01" "3.1.2.1" Refuse(400);
    "clerr" "3.1.2.2" Refuse(400);
    "ncl" "3.1.2.3" Refuse(400);
    "scalar02" "3.1.2.4" Refuse(400);
    "scalarlg" "3.1.2.5" Drop;
    "quotbal" "3.1.2.6" Refuse(400);
    "ltgtruri" "3.1.2.7" Refuse(400);
    "lwsruri" "3.1.2.8" Refuse(400);
    "lwsstart" "3.1.2.9" Refuse(400);
    "trws" "3.1.2.10" Refuse(400);
    "escruri" "3.1.2.11" Refuse(400);
    // Only who reads the Date may mind its zone: "an element shouldn't do that unless the contents of the Date header
    // field were actually important to its processing".
    "baddate" "3.1.2.12" Process;
    "regbadct" "3.1.2.13" Refuse(400);
    "badaspec" "3.1.2.14" Refuse(400);
    "baddn" "3.1.2.15" Refuse(400);
    "badvers" "3.1.2.16" Refuse(505);
    "mismatch01" "3.1.2.17" Refuse(400);
    "mismatch02" "3.1.2.18" Refuse(400);
    "bigcode" "3.1.2.19" Drop;
    // Transactions.
    "badbranch" "3.2.1" Process;
    // Applications. Those that go on here meet their refusal, if any, at whom they are meant for.
    "insuf" "3.3.1" Refuse(400);
    "unkscm" "3.3.2" Refuse(416);
    "novelsc" "3.3.3" Refuse(416);
    "unksm2" "3.3.4" Process;
    "bext01" "3.3.5" Refuse(420);
    "invut" "3.3.6" Process;
    "regaut01" "3.3.7" Process;
    "multi01" "3.3.8" Refuse(400);
    "mcl01" "3.3.9" Refuse(400);
    // A response for somebody else: no transaction of ours matches it.
    "bcast" "3.3.10" Process;
    "zeromf" "3.3.11" Refuse(483);
    "cparam01" "3.3.12" Process;
    "cparam02" "3.3.13" Process;
    "regescrt" "3.3.14" Process;
    "sdp01" "3.3.15" Process;
    "inv2543" "3.4.1" Process;
};

pub(crate) static RFC_5118: &[Case] = cases! { "rfc5118":
    "ipv6-good" "4.1" Process;
    "ipv6-bad" "4.2" Refuse(400);
    "port-ambiguous" "4.3" Process;
    "port-unambiguous" "4.4" Process;
    "via-received-param-with-delim" "4.5" Process;
    "via-received-param-no-delim" "4.5" Process;
    "ipv6-in-sdp" "4.6" Process;
    "mult-ip-in-header" "4.7" Process;
    "mult-ip-in-sdp" "4.8" Process;
    "ipv4-mapped-ipv6" "4.9" Process;
    "ipv6-bug-abnf-3-colons" "4.10" Process;
    "ipv6-correct-abnf-2-colons" "4.10" Process;
};

/// A message of RFC 4475 or RFC 5118 by its name there.
pub(crate) fn bytes(name: &str) -> &'static [u8] {
    let case = RFC_4475.iter().chain(RFC_5118).find(|case| case.name == name);
    case.expect("the test names a message of the corpus").bytes
}
