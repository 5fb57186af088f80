//! What operators do by hand: endpoints taken out and back in (H5), limits set and taken back.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{Coordinator, Healing};
use crate::{
    config::model::PolicyMode,
    healing::{ejection::Event, ward::Ward},
    limiter::{
        application::Application,
        hand::{HandLimit, Whose},
    },
};

impl Coordinator {
    /// An operator takes an endpoint out, for `penalty`.
    ///
    /// # Errors
    ///
    /// Why it cannot be.
    pub fn eject(
        &mut self,
        cluster: &str,
        address: SocketAddr,
        now: Duration,
        penalty: Duration,
    ) -> Result<Healing, String> {
        let (name, ward) = self.ward(cluster)?;
        let event = ward.eject(address, now, penalty)?;
        Ok(self.by_hand(name, address, event))
    }

    /// An operator takes an endpoint back in.
    ///
    /// # Errors
    ///
    /// Why it cannot be.
    pub fn restore(
        &mut self,
        cluster: &str,
        address: SocketAddr,
        now: Duration,
    ) -> Result<Healing, String> {
        let (name, ward) = self.ward(cluster)?;
        let event = ward.restore(address, now)?;
        Ok(self.by_hand(name, address, event))
    }

    /// Whether [`Coordinator::eject`] would do it.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn may_eject(&mut self, cluster: &str, address: SocketAddr) -> Result<(), String> {
        self.ward(cluster)?.1.may_eject(address)
    }

    /// Whether [`Coordinator::restore`] would do it.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn may_restore(&mut self, cluster: &str, address: SocketAddr) -> Result<(), String> {
        self.ward(cluster)?.1.may_restore(address)
    }

    /// An operator sets a limit on what is in flight to a cluster, beside those that are found.
    ///
    /// # Errors
    ///
    /// Why it cannot be.
    pub fn set_limit(
        &mut self,
        cluster: &str,
        whose: Whose,
        limit: HandLimit,
    ) -> Result<(), String> {
        let application = self.application(cluster)?;
        let done = application.limit_by_hand(whose, limit);
        done.map_err(|why| format!("cluster `{cluster}`: {why}"))
    }

    /// Whether [`Coordinator::set_limit`] would do it.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn may_set_limit(&mut self, cluster: &str, whose: &Whose) -> Result<(), String> {
        let may = self.application(cluster)?.may_limit_by_hand(whose);
        may.map_err(|why| format!("cluster `{cluster}`: {why}"))
    }

    /// An operator takes it back.
    ///
    /// # Errors
    ///
    /// Why it cannot be.
    pub fn clear_limit(&mut self, cluster: &str, whose: &Whose) -> Result<(), String> {
        let done = self.application(cluster)?.unlimit_by_hand(whose);
        done.map_err(|why| format!("cluster `{cluster}`: {why}"))
    }

    fn application(&mut self, cluster: &str) -> Result<&mut Application, String> {
        let names: Vec<String> = self.applications.keys().map(ToString::to_string).collect();
        let found = self.applications.get_mut(cluster);
        found.ok_or_else(|| {
            let others = others(&names);
            format!("cluster `{cluster}` has no `adaptive_limit`; {others}")
        })
    }

    fn ward(&mut self, cluster: &str) -> Result<(Arc<str>, &mut Ward), String> {
        let names: Vec<String> = self.wards.keys().map(ToString::to_string).collect();
        let found = self.wards.iter_mut().find(|(name, _)| ***name == *cluster);
        let Some((name, ward)) = found else {
            let others = others(&names);
            return Err(format!("cluster `{cluster}` has no `heal`; {others}"));
        };
        match ward.heal().mode {
            PolicyMode::Enforce => Ok((name.clone(), ward)),
            PolicyMode::Shadow => Err(format!(
                "cluster `{cluster}` heals in shadow: nothing is changed"
            )),
        }
    }

    fn by_hand(&mut self, cluster: Arc<str>, address: SocketAddr, event: Event) -> Healing {
        self.untold.insert((cluster.clone(), address));
        Healing {
            cluster,
            address,
            event,
            enforced: true,
        }
    }
}

/// Which clusters have what this one has not.
fn others(names: &[String]) -> String {
    match names.is_empty() {
        true => "no other has".to_owned(),
        false => format!("those that do: {}", names.join(", ")),
    }
}
