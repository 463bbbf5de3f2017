//! What a host is told: its own policy, and names of those it has to do with.

use anyhow::{Result, ensure};

use crate::client::{Session, Workload, contains, on};
use crate::stand::{CANARY, STAND, Stand};

/// A policy of `vault` that shows in what its own workloads are told.
fn policy(stand: &Stand, name: &str) -> Result<()> {
    let yaml = e2e::cluster::allow_ingress(name, "keys", &["keys"], None);
    let yaml = yaml.replace("namespace: shop", "namespace: vault");
    stand.cluster.gateway.apply("policy-keys-2.yaml", &yaml).map(drop)
}

#[test]
fn threat_54_a_host_learns_nothing_of_other_namespaces() {
    STAND.test(|stand| {
        let (in_shop, in_vault) = (stand.machine()?, stand.machine()?);
        let keys = Workload::join(&in_vault, &stand.token("vault/keys")?)?;
        let shop = Workload::join(&in_shop, &stand.token("shop/batch")?)?;
        let told =
            on(&in_vault, || async { Ok(Session::open(keys.connect().await?).await?.update().await?) })?;
        ensure!(contains(&told, CANARY), "not even its own are told: this test shows nothing");
        on(&in_shop, || async {
            let mut session = Session::open(shop.connect().await?).await?;
            let told = session.update().await?;
            ensure!(
                contains(&told, "shop/batch") || contains(&told, &shop.name()),
                "it is not told of itself"
            );
            for secret in [CANARY, "vault", &keys.name()] {
                ensure!(!contains(&told, secret), "{secret:?} is told at first");
            }
            // Nor with what changes: labels and policies of the others, and a workload that comes and goes.
            policy(stand, "second-canary-of-vault")?;
            let machine = stand.machine()?;
            let late = Workload::join(&machine, &stand.token("vault/keys")?)?;
            let told = session.update().await?;
            for secret in [CANARY, "vault", "canary", &late.name()] {
                ensure!(!contains(&told, secret), "{secret:?} is told with a change");
            }
            Ok(())
        })
    });
}

#[test]
fn threat_54_a_host_learns_no_policy_of_another_group() {
    STAND.test(|stand| {
        let yaml = e2e::cluster::allow_ingress("policy-of-db", "db", &["client-of-db"], Some(5432));
        stand.cluster.gateway.apply("policy-db.yaml", &yaml)?;
        let (first, second) = (stand.machine()?, stand.machine()?);
        let db = Workload::join(&first, &stand.token("shop/db")?)?;
        // The policy is read meanwhile: at last its own workload is told of it.
        on(&first, || async {
            let mut session = Session::open(db.connect().await?).await?;
            while !contains(&session.update().await?, "policy-of-db") {}
            Ok(())
        })?;
        let batch = Workload::join(&second, &stand.token("shop/batch")?)?;
        let told =
            on(&second, || async { Ok(Session::open(batch.connect().await?).await?.update().await?) })?;
        ensure!(!contains(&told, "policy-of-db"), "it is told the policy of another");
        Ok(())
    });
}
