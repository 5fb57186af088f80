//! A rollout set by hand, above what the file says (E3, X4): for trying a share, and for turning back at once.
//!
//! A change lives until the process ends, the file's own value for that cluster changes, or it is taken
//! back. It never weakens what the file requires: nothing that is `required` is sent in plaintext (E16).

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use crate::config::model::{ClusterTls, Config, Rollout, UpstreamTls};

/// What an operator asks for, for one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutChange {
    /// Encrypt links to every endpoint that announces TLS and that the rollout's zones and labels select.
    On,
    /// Encrypt this share of them, in basis points.
    Share(u32),
    /// Encrypt none.
    Off,
    /// What the file says again.
    AsConfigured,
}

/// The changes in effect.
#[derive(Clone, Debug, Default)]
pub struct RolloutChanges {
    by_cluster: BTreeMap<Arc<str>, Set>,
}

#[derive(Clone, Debug)]
struct Set {
    change: RolloutChange,
    /// What the file said when it was set.
    configured: (UpstreamTls, Rollout),
}

/// Basis points of the whole.
const WHOLE: u32 = 10_000;

impl RolloutChanges {
    /// Sets or takes back the change of one cluster of `configured`, the file's own configuration.
    ///
    /// # Errors
    ///
    /// Why it cannot be, and what can.
    pub fn set(
        &mut self,
        configured: &Config,
        cluster: &str,
        change: RolloutChange,
    ) -> Result<(), String> {
        let Some((name, found)) = configured.clusters.get_key_value(cluster) else {
            return Err(format!("there is no cluster `{cluster}`"));
        };
        let Some(tls) = &found.tls else {
            return Err(format!(
                "cluster `{cluster}` has no `tls` section, so there is no authority to trust: add one to the file"
            ));
        };
        if change == RolloutChange::AsConfigured {
            self.by_cluster.remove(cluster);
            return Ok(());
        }
        if tls.mode == UpstreamTls::Required {
            return Err(format!(
                "cluster `{cluster}` is `required`, which a rollout cannot weaken: set `mode: follow_peer` in the file"
            ));
        }
        if let RolloutChange::Share(basis_points) = change
            && basis_points > WHOLE
        {
            return Err(format!(
                "{basis_points} basis points are more than the whole, {WHOLE}"
            ));
        }
        let configured = (tls.mode, tls.rollout.clone());
        self.by_cluster
            .insert(name.clone(), Set { change, configured });
        Ok(())
    }

    /// The file was read again: drops the changes of clusters whose own value is another now, or that are gone.
    /// Returns their names.
    pub fn follow(&mut self, configured: &Config) -> Vec<Arc<str>> {
        let mut dropped = Vec::new();
        self.by_cluster.retain(|name, set| {
            let tls = configured.clusters.get(name).and_then(|c| c.tls.as_ref());
            let stays = tls.is_some_and(|tls| {
                (tls.mode, &tls.rollout) == (set.configured.0, &set.configured.1)
            });
            if !stays {
                dropped.push(name.clone());
            }
            stays
        });
        dropped
    }

    /// `configured` with the changes made to it; the same one if there are none.
    pub fn apply(&self, configured: &Arc<Config>) -> Arc<Config> {
        if self.by_cluster.is_empty() {
            return configured.clone();
        }
        let mut config = Config::clone(configured);
        for (name, set) in &self.by_cluster {
            let tls = config.clusters.get_mut(name).and_then(|c| c.tls.as_mut());
            if let Some(tls) = tls {
                set.change.apply(tls);
            }
        }
        Arc::new(config)
    }

    /// The changes in effect, by cluster.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, RolloutChange)> {
        self.by_cluster.iter().map(|(name, set)| (name, set.change))
    }
}

impl RolloutChange {
    fn apply(self, tls: &mut ClusterTls) {
        match self {
            RolloutChange::On => follow(tls, WHOLE),
            RolloutChange::Share(basis_points) => follow(tls, basis_points),
            RolloutChange::Off => tls.mode = UpstreamTls::Disabled,
            RolloutChange::AsConfigured => {}
        }
    }
}

fn follow(tls: &mut ClusterTls, basis_points: u32) {
    tls.mode = UpstreamTls::FollowPeer;
    tls.rollout.basis_points = basis_points;
}

impl FromStr for RolloutChange {
    type Err = String;

    /// `on`, `off`, `20%`, `0.5%`; `file` for what the file says.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" => return Ok(RolloutChange::On),
            "off" => return Ok(RolloutChange::Off),
            "file" => return Ok(RolloutChange::AsConfigured),
            _ => {}
        }
        text.strip_suffix('%')
            .and_then(basis_points)
            .filter(|points| *points <= WHOLE)
            .map(RolloutChange::Share)
            .ok_or_else(|| {
                format!("`{text}` is none of `on`, `off`, `file`, or a share from `0%` to `100%` with at most two decimals")
            })
    }
}

/// `20`, `0.5`, `33.34`, as hundredths.
fn basis_points(percent: &str) -> Option<u32> {
    let (whole, decimals) = percent.split_once('.').unwrap_or((percent, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 2 || whole.len() > 3 {
        return None;
    }
    let hundredths: u32 = decimals.parse().ok()?;
    let scale = if decimals.len() == 1 { 10 } else { 1 };
    Some(whole.parse::<u32>().ok()? * 100 + hundredths * scale)
}

impl std::fmt::Display for RolloutChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RolloutChange::On => f.write_str("on"),
            RolloutChange::Share(bp) if bp % 100 == 0 => write!(f, "{}%", bp / 100),
            RolloutChange::Share(bp) => write!(f, "{}.{:02}%", bp / 100, bp % 100),
            RolloutChange::Off => f.write_str("off"),
            RolloutChange::AsConfigured => f.write_str("as configured"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::{config, encryption::fixture};

    fn configured(mode: UpstreamTls, basis_points: u32) -> Arc<Config> {
        let text = "version: 1\nclusters:\n  app: { endpoints: { static: [ \"127.0.0.1:9\" ] } }\n  \
                    plain: { endpoints: { static: [ \"127.0.0.1:9\" ] } }\n";
        let (mut config, _) = config::parse("test", text).unwrap();
        let mut tls = fixture::cluster_tls("ca");
        tls.mode = mode;
        tls.rollout.basis_points = basis_points;
        config.clusters.get_mut("app").unwrap().tls = Some(Box::new(tls));
        Arc::new(config)
    }

    fn in_use(config: &Config) -> (UpstreamTls, u32) {
        let tls = config.clusters["app"].tls.as_ref().unwrap();
        (tls.mode, tls.rollout.basis_points)
    }

    /// Goal: a change is what is in use, survives reloads that say the same, and gives way when the file
    /// says something else. Method: set each kind, reload both ways.
    #[test]
    fn changes_survive_until_the_file_changes() {
        use UpstreamTls::{Disabled, FollowPeer};
        let file = configured(FollowPeer, 1_000);
        for (change, expected) in [
            (RolloutChange::Share(2_000), (FollowPeer, 2_000)),
            (RolloutChange::On, (FollowPeer, 10_000)),
            (RolloutChange::Off, (Disabled, 1_000)),
            (RolloutChange::AsConfigured, (FollowPeer, 1_000)),
        ] {
            let mut changes = RolloutChanges::default();
            changes.set(&file, "app", RolloutChange::Share(1)).unwrap();
            changes.set(&file, "app", change).unwrap();
            assert_eq!(in_use(&changes.apply(&file)), expected, "{change}");
            let same = configured(FollowPeer, 1_000);
            assert!(changes.follow(&same).is_empty());
            assert_eq!(in_use(&changes.apply(&same)), expected);
        }
        let mut changes = RolloutChanges::default();
        changes.set(&file, "app", RolloutChange::Off).unwrap();
        let other = configured(FollowPeer, 3_000);
        assert_eq!(changes.follow(&other), [Arc::from("app")]);
        assert_eq!(in_use(&changes.apply(&other)), (FollowPeer, 3_000));
        assert!(Arc::ptr_eq(&changes.apply(&other), &other));
    }

    /// Goal: what cannot be is refused with a way out, and `required` is never weakened (E16). Method: table.
    #[test]
    fn impossible_changes_are_refused() {
        let required = configured(UpstreamTls::Required, 10_000);
        let follow = configured(UpstreamTls::FollowPeer, 10_000);
        for (config, cluster, change, part) in [
            (&required, "app", RolloutChange::Off, "follow_peer"),
            (&required, "app", RolloutChange::Share(1), "follow_peer"),
            (&follow, "plain", RolloutChange::On, "no `tls` section"),
            (&follow, "nobody", RolloutChange::On, "no cluster"),
            (&follow, "app", RolloutChange::Share(10_001), "10000"),
        ] {
            let mut changes = RolloutChanges::default();
            let refusal = changes.set(config, cluster, change).unwrap_err();
            assert!(refusal.contains(part), "{refusal}");
            assert_eq!(changes.iter().count(), 0);
        }
    }

    /// Goal: a share reads as it was written. Method: table.
    #[test]
    fn shares_read_well() {
        for (change, text) in [
            (RolloutChange::Share(2_000), "20%"),
            (RolloutChange::Share(5), "0.05%"),
            (RolloutChange::Share(10_000), "100%"),
            (RolloutChange::Off, "off"),
        ] {
            assert_eq!(change.to_string(), text);
        }
    }

    /// Goal: what people write is read exactly, and what was meant is said where it is not. Method: table.
    #[test]
    fn changes_are_read() {
        for (text, change) in [
            ("on", Some(RolloutChange::On)),
            ("off", Some(RolloutChange::Off)),
            ("file", Some(RolloutChange::AsConfigured)),
            ("0%", Some(RolloutChange::Share(0))),
            ("20%", Some(RolloutChange::Share(2_000))),
            ("0.5%", Some(RolloutChange::Share(50))),
            ("33.34%", Some(RolloutChange::Share(3_334))),
            ("100%", Some(RolloutChange::Share(10_000))),
            ("100.01%", None),
            ("1.234%", None),
            ("-1%", None),
            ("+1%", None),
            (".5%", None),
            ("1.%", None),
            ("%", None),
            ("20", None),
            ("ON", None),
            ("", None),
            ("99999999999%", None),
        ] {
            let read = text.parse::<RolloutChange>();
            assert_eq!(read.as_ref().ok(), change.as_ref(), "{text}");
            if let Err(why) = read {
                assert!(why.contains("`0%` to `100%`"), "{why}");
            }
        }
    }
}
