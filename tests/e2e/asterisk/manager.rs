//! Asterisk's manager interface: fields in lines, an empty line at the end.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};

use crate::process::PATIENCE;

/// Logs in, asks for one action, and gives the fields of its answer.
///
/// # Errors
///
/// What went wrong with the connection, or what the action was refused with.
pub(super) fn try_ask(port: u16, action: &str, fields: &[(&str, &str)]) -> io::Result<Vec<(String, String)>> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut greeting = String::new();
    reader.read_line(&mut greeting)?;
    ask(&stream, &mut reader, "Login", &[("Username", "test"), ("Secret", "test"), ("Events", "off")])?;
    ask(&stream, &mut reader, action, fields)
}

fn ask(
    mut stream: &TcpStream,
    reader: &mut impl BufRead,
    action: &str,
    fields: &[(&str, &str)],
) -> io::Result<Vec<(String, String)>> {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    stream.write_all(format!("Action: {action}\r\nActionID: {action}\r\n{fields}\r\n").as_bytes())?;
    loop {
        let answer = read(reader)?;
        let is = |name: &str, value: &str| answer.iter().any(|field| (&*field.0, &*field.1) == (name, value));
        if !is("ActionID", action) {
            continue;
        }
        if is("Response", "Error") {
            return Err(io::Error::other(format!("{answer:?}")));
        }
        return Ok(answer);
    }
}

fn read(reader: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return Ok(fields);
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        fields.push((name.to_owned(), value.strip_prefix(' ').unwrap_or(value).to_owned()));
    }
}
