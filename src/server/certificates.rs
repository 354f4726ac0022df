//! Mutual TLS between nodes: each side shows a certificate that the group's authority has signed
//! for its node name.
//!
//! Sessions are never resumed, so that a certificate that has run out or was replaced opens nothing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use webpki::EndEntityCert;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::channel::Channel;
use super::guard::{BadFile, read};
use super::net::Stream;

/// Where the certificates are.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// This node's, and those between it and the authority's.
    pub cert: PathBuf,
    /// The key of this node's.
    pub key: PathBuf,
    /// Those of the authorities that the group trusts.
    pub ca: PathBuf,
}

/// What this node shows, and what it wants to see.
pub(super) struct Identity {
    dials: TlsConnector,
    accepts: TlsAcceptor,
    not_after_s: Option<i64>,
}

impl Identity {
    /// Reads the files, and makes sure that others would accept what is in them for this name.
    pub(super) fn load(files: &CertificateFiles, name: &str) -> Result<Self, BadFile> {
        let own = certificates("--peer-cert", &files.cert)?;
        let trusted = certificates("--peer-ca", &files.ca)?;
        let mut roots = RootCertStore::empty();
        for authority in trusted {
            let added = roots.add(authority);
            added.map_err(|error| BadFile::new("--peer-ca", &files.ca, error))?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(ring::default_provider());
        check(&own, &roots, &provider, name)
            .map_err(|why| BadFile::new("--peer-cert", &files.cert, why))?;
        let key = PrivateKeyDer::from_pem_slice(&read("--peer-key", &files.key)?)
            .map_err(|error| BadFile::new("--peer-key", &files.key, error))?;
        let wrong = |error: rustls::Error| BadFile::new("--peer-key", &files.key, error);
        let not_after_s = not_after_s(&own);
        let dials = dialing(own.clone(), key.clone_key(), &roots, &provider).map_err(wrong)?;
        let accepts = accepting(own, key, &roots, &provider).map_err(wrong)?;
        Ok(Self { dials: Arc::new(dials).into(), accepts: Arc::new(accepts).into(), not_after_s })
    }

    /// When what this node shows ends.
    pub(super) fn not_after_s(&self) -> Option<i64> {
        self.not_after_s
    }

    /// The side that dialed, as the node of that name should be there.
    pub(super) async fn dial<S: Stream>(&self, stream: S, name: &str) -> io::Result<Channel<S>> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let stream = self.dials.connect(name, stream).await?;
        Ok(Channel::Tls(Box::new(stream.into())))
    }

    /// The side that was dialed.
    pub(super) async fn accept<S: Stream>(&self, stream: S) -> io::Result<Channel<S>> {
        let stream = self.accepts.accept(stream).await?;
        Ok(Channel::Tls(Box::new(stream.into())))
    }
}

/// Whether the certificate is for just this name: a pattern is not a node.
pub(super) fn is_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    EndEntityCert::try_from(certificate).is_ok_and(|certificate| {
        certificate.valid_dns_names().any(|other| other.eq_ignore_ascii_case(name))
    })
}

/// When the first of these certificates ends, as a Unix time: with it the others are worth nothing.
pub(super) fn not_after_s(certificates: &[CertificateDer<'_>]) -> Option<i64> {
    let end = |certificate: &CertificateDer<'_>| {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Some(certificate.validity().not_after.timestamp())
    };
    certificates.iter().filter_map(end).min()
}

/// Whether a certificate can be for a node of that name.
pub fn can_be_certified(name: &str) -> bool {
    matches!(ServerName::try_from(name), Ok(ServerName::DnsName(_)))
}

fn certificates(
    flag: &'static str,
    path: &std::path::Path,
) -> Result<Vec<CertificateDer<'static>>, BadFile> {
    let text = read(flag, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(BadFile::new(flag, path, "there is no certificate in it (PEM)"))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(BadFile::new(flag, path, error)),
    }
}

/// What the others will do when they are dialed from here, or dial.
fn check(
    own: &[CertificateDer<'static>],
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    name: &str,
) -> Result<(), String> {
    let (Some(first), between) = (own.first(), own.get(1..).unwrap_or_default()) else {
        return Err("there is no certificate in it (PEM)".into());
    };
    if !is_for(first, name) {
        return Err(format!("not for this node: no DNS name in it is {name:?} (--node-name)"));
    }
    let text = |error: &dyn std::fmt::Display| format!("the others would refuse it: {error}");
    let server_name = ServerName::try_from(name).map_err(|error| text(&error))?;
    let now = UnixTime::now();
    WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
        .build()
        .map_err(|error| text(&error))?
        .verify_server_cert(first, between, &server_name, &[], now)
        .map_err(|error| text(&error))?;
    WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
        .build()
        .map_err(|error| text(&error))?
        .verify_client_cert(first, between, now)
        .map_err(|error| text(&error))?;
    Ok(())
}

fn dialing(
    own: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(Arc::clone(roots))
        .with_client_auth_cert(own, key)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn accepting(
    own: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, rustls::Error> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(own, key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
