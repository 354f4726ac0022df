//! `make certs`: an authority and a certificate for each node, to try out `--peer-cert` with, and for
//! the tests. An authority that is in the directory already signs again.
//!
//! Not how to run a group for good: there, the authority's key lies somewhere else.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

const USAGE: &str = "usage: certs DIRECTORY DAYS NAME...   (DAYS may be negative: run out already)";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Two machines' clocks may differ.
const BEFORE: Duration = Duration::from_secs(60 * 60);
const AUTHORITY_DAYS: u32 = 3650;

#[allow(dead_code, reason = "a test that issues certificates of its own has another")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, days, names @ ..] = &arguments[..] else { return Err(USAGE.into()) };
    issue(Path::new(folder), days.parse().map_err(|_| USAGE)?, names)
}

/// A certificate and a key for each name, and the authority's if there is none yet.
pub(crate) fn issue(folder: &Path, days: i32, names: &[String]) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    let authority = authority(folder)?;
    for name in names {
        let key = KeyPair::generate()?;
        let certificate = node(name, days)?.signed_by(&key, &authority)?;
        fs::write(folder.join(format!("{name}.pem")), certificate.pem())?;
        write_private(&folder.join(format!("{name}.key")), &key.serialize_pem())?;
    }
    Ok(())
}

fn authority(folder: &Path) -> Result<Issuer<'static, KeyPair>, Box<dyn Error>> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, "sessiond test authority");
    params.not_before = (SystemTime::now() - BEFORE).into();
    params.not_after = (SystemTime::now() + DAY * AUTHORITY_DAYS).into();
    let (key_path, path) = (folder.join("ca.key"), folder.join("ca.pem"));
    let key = if key_path.exists() {
        KeyPair::from_pem(&fs::read_to_string(key_path)?)?
    } else {
        let key = KeyPair::generate()?;
        fs::write(path, params.self_signed(&key)?.pem())?;
        write_private(&key_path, &key.serialize_pem())?;
        key
    };
    Ok(Issuer::new(params, key))
}

/// Each node dials, and is dialed.
fn node(name: &str, days: i32) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let now = SystemTime::now();
    let end = if days < 0 { now - DAY * days.unsigned_abs() } else { now + DAY * days as u32 };
    params.not_before = (now.min(end) - BEFORE).into();
    params.not_after = end.into();
    Ok(params)
}

/// What only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(text.as_bytes())
}
