//! Somebody else signs, well and badly.

use std::sync::atomic::{AtomicUsize, Ordering};

use pki::{Authority, CertificateDer, CheckedCsr, KeyPair, SpiffeId, UnfitCertificate};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::*;
use crate::store::{Joining, Minting, Pools, Proof, Settings, Target, unix_time};

const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_hours(490_896));
const HOUR: Duration = Duration::from_hours(1);

/// What a stub does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Sign,
    /// The first time it is away.
    Late,
    Refuse,
    Silence,
    /// It signs for a key of its own.
    OtherKey,
}

struct Stub {
    authority: Authority,
    mood: Mood,
    asked: AtomicUsize,
}

#[tonic::async_trait]
impl Signer for Stub {
    fn name(&self) -> &'static str {
        "the stub"
    }

    fn elsewhere(&self) -> &'static str {
        "nowhere"
    }

    async fn sign(&self, asked: &Asked<'_>) -> Result<Signed, SignFailure> {
        let other = CheckedCsr::from_der(&KeyPair::generate().unwrap().request().unwrap()).unwrap();
        let csr = match (self.mood, self.asked.fetch_add(1, Ordering::SeqCst)) {
            (Mood::Late, 0) => return Err(SignFailure::Unavailable("sealed".to_owned())),
            (Mood::Refuse, _) => return Err(SignFailure::Refused("no role".to_owned())),
            (Mood::Silence, _) => std::future::pending().await,
            (Mood::OtherKey, _) => &other,
            (Mood::Sign | Mood::Late, _) => asked.csr,
        };
        let issued = self.authority.issue(csr, asked.id, asked.now, asked.lifetime)?;
        Ok(Signed { chain: issued.chain, authorities: self.authorities().await? })
    }

    async fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, SignFailure> {
        Ok(vec![self.authority.certificate().clone()])
    }
}

struct World {
    store: Arc<Store>,
    domain: TrustDomain,
    _folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pools = Pools::try_new(&["10.9.0.0/24".parse().unwrap()]).unwrap();
        let settings = Settings { pools, cluster_id: 0, quarantine: HOUR };
        let store = Arc::new(Store::open(folder.path(), settings).unwrap());
        Self { store, domain: TrustDomain::try_new("outrigger.local").unwrap(), _folder: folder }
    }

    fn stub(&self, mood: Mood) -> Arc<Stub> {
        let authority = Authority::create(&self.domain, NOW).unwrap();
        Arc::new(Stub { authority, mood, asked: AtomicUsize::new(0) })
    }

    fn external(&self, signer: Arc<Stub>) -> Ca {
        let external = External { signer, trust_bundle: None, deadline: Duration::from_millis(700) };
        Ca::open_external(self.store.clone(), &self.domain, external, NOW).unwrap()
    }

    fn built_in(&self) -> Ca {
        Ca::open(self.store.clone(), &self.domain, NOW).unwrap()
    }

    /// A host that has shown what it was given.
    async fn host(&self, ca: &Ca) -> WorkloadName {
        let target = Target::Group { namespace: "shop".to_owned(), name: "db".to_owned() };
        let minting = Minting {
            target,
            bound_to: None,
            ttl: HOUR,
            uses: 1,
            source_prefixes: Vec::new(),
            ephemeral: false,
        };
        let minted = self.store.mint(minting, NOW).unwrap();
        let name = WorkloadName::try_new("shop", "db-1").unwrap();
        let certificate = issue(ca).await.unwrap();
        let joining = Joining {
            proof: Proof::Token {
                id: minted.token.id.clone(),
                secret: Zeroizing::new(minted.secret.to_vec()),
            },
            name: name.clone(),
            key: pki::KeyHash::of_spki(&[1]),
            machine: vec![1; 32],
            underlay: vec!["192.0.2.1".parse().unwrap()],
            source: None,
            agent_version: "1".to_owned(),
            wanted: Vec::new(),
            promised: std::collections::BTreeSet::new(),
        };
        self.store.join(&joining, certificate.issued.expires, NOW).unwrap();
        self.show(&name, &certificate);
        name
    }

    fn show(&self, name: &WorkloadName, certificate: &Certificate) {
        let given = certificate.given();
        let expires = given.expires;
        self.store.gave(name, given).unwrap();
        self.store.confirm_given(name, expires).unwrap();
    }
}

fn id(text: &str) -> SpiffeId {
    format!("spiffe://outrigger.local/{text}").parse().unwrap()
}

async fn issue(ca: &Ca) -> Result<Certificate, SignError> {
    let csr = CheckedCsr::from_der(&KeyPair::generate().unwrap().request().unwrap()).unwrap();
    ca.issue(&Asked { csr: &csr, id: &id("ns/shop/ew/db-1"), now: NOW, lifetime: HOUR }).await
}

async fn own(ca: &Ca) -> String {
    let csr = CheckedCsr::from_der(&KeyPair::generate().unwrap().request().unwrap()).unwrap();
    let asked = Asked { csr: &csr, id: &id("gateway/g"), now: NOW, lifetime: HOUR };
    ca.issue_own(&asked).await.unwrap().issuer
}

#[tokio::test]
async fn what_is_temporary_is_tried_again_and_the_rest_is_not() {
    let world = World::new();
    let late = world.stub(Mood::Late);
    let ca = world.external(late.clone());
    issue(&ca).await.unwrap();
    assert_eq!((late.asked.load(Ordering::SeqCst), ca.trouble()), (2, None));
    let refusing = world.stub(Mood::Refuse);
    let ca = world.external(refusing.clone());
    let refused = issue(&ca).await.unwrap_err();
    assert_eq!(refused.to_string(), "the stub does not sign: no role");
    assert_eq!((refusing.asked.load(Ordering::SeqCst), refused.reason()), (1, "ca-refused"));
    assert_eq!(ca.trouble(), Some(refused.to_string()));
    let silent = issue(&world.external(world.stub(Mood::Silence))).await.unwrap_err();
    assert!(matches!(silent, SignError::Unavailable { .. }), "{silent}");
}

#[tokio::test]
async fn what_nobody_asked_for_is_given_to_nobody_and_its_root_is_not_learned() {
    let world = World::new();
    let ca = world.external(world.stub(Mood::OtherKey));
    let unfit = issue(&ca).await.unwrap_err();
    assert!(matches!(unfit, SignError::Unfit { fault: UnfitCertificate::Key, .. }), "{unfit}");
    assert!(ca.roots().all().is_empty() && ca.roots().bundle().is_err());
}

#[tokio::test]
async fn a_mesh_is_handed_over_and_nobody_is_lost() {
    let world = World::new();
    let built_in = world.built_in();
    let name = world.host(&built_in).await;
    let old = built_in.roots().active().to_owned();
    drop(built_in);

    let ca = world.external(world.stub(Mood::Sign));
    assert_eq!(own(&ca).await, old, "the host trusts no other root yet");
    let new = ca.roots().active().to_owned();
    assert!(new != old && ca.roots().all().len() == 2);
    let retired = ca.retire(&old, false, NOW).unwrap_err();
    assert!(matches!(retired, RotationError::InUse { .. }), "{retired}");
    assert!(matches!(ca.add(NOW), Err(RotationError::Elsewhere { .. })));
    assert!(matches!(ca.activate(&old, true, NOW), Err(RotationError::Elsewhere { .. })));
    let csr = CheckedCsr::from_der(&KeyPair::generate().unwrap().request().unwrap()).unwrap();
    let later = unix_time(NOW.as_secs() + 60);
    let asked = Asked { csr: &csr, id: &id("ns/shop/ew/db-1"), now: later, lifetime: HOUR };
    world.show(&name, &ca.issue(&asked).await.unwrap());
    assert_eq!(own(&ca).await, new);
    ca.retire(&old, false, NOW).unwrap();
    let kept = world.store.kept_roots(&world.domain).unwrap();
    assert!(kept.len() == 1 && kept[0].authority.is_none(), "the key is gone");

    // Back again there is a root of the gateway's own, and the other one stays trusted.
    let back = world.built_in();
    assert_eq!(back.roots().all().len(), 2);
    assert!(back.roots().active() != new && issue(&back).await.is_ok());
    let keyless = back.activate(&new, true, NOW).unwrap_err();
    assert!(matches!(keyless, RotationError::Keyless(_)), "{keyless}");
}
