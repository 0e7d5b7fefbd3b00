//! Which engines of the fleet belong to which pool of the policy.
//!
//! An engine whose agent declares a `pool` belongs to the policy's pool of that name, if model and role are the same (a
//! model that the engine has not told yet is no contradiction). An engine without belongs to the only pool that its
//! model has in its role. Whatever else there is belongs to nobody, and is told.

use std::{collections::BTreeMap, fmt};

use plimsoll_common::{
    engine::Role,
    ids::{ModelName, PoolName},
    units::Micros,
};
use plimsoll_core::{fleet::PoolKey, policy::Policy};

/// The pools of a policy, as engines are looked up in them.
#[derive(Debug, Default)]
pub struct Matching {
    pools: BTreeMap<PoolName, Wanted>,
    /// The pools of each model, by role.
    models: BTreeMap<ModelName, BTreeMap<Role, Vec<PoolName>>>,
}

/// What is to be known of a pool to fold its engines' reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The model it serves.
    pub model: ModelName,
    /// Which part of a request it serves.
    pub role: Role,
    /// How many engines are one replica, where engines do not tell their replica; at least 1.
    pub engines_per_replica: u32,
    /// The longest time to first token that is promised.
    pub ttft: Option<Micros>,
    /// The longest time between tokens that is promised.
    pub itl: Option<Micros>,
}

/// Why an engine belongs to no pool of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stranger {
    /// It declares a pool that the policy does not have.
    Pool,
    /// It declares a pool that the policy has for another model.
    Model,
    /// It declares a pool that the policy has in another role.
    Role,
    /// It declares no pool and has not told its model.
    Unnamed,
    /// The policy does not have its model.
    ModelUnknown,
    /// Its model has no pool in its role.
    RoleUnknown,
    /// Its model has several pools in its role.
    Ambiguous,
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pool => "the policy has no pool of this name",
            Self::Model => "the policy has the pool for another model",
            Self::Role => "the policy has the pool in another role",
            Self::Unnamed => "they declare no pool and have not told their model",
            Self::ModelUnknown => "the policy does not have the model",
            Self::RoleUnknown => "the policy has no pool of the model in this role",
            Self::Ambiguous => "the policy has several pools of the model in this role: declare which one",
        })
    }
}

impl Matching {
    /// The pools of this policy.
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        let mut matching = Self::default();
        for (model, pool) in policy.pools() {
            let slo = model.slo();
            let wanted = Wanted {
                model: model.name.clone(),
                role: pool.role,
                engines_per_replica: pool.engines_per_replica().max(1),
                ttft: slo.and_then(|slo| slo.ttft),
                itl: slo.and_then(|slo| slo.itl),
            };
            let of_model = matching.models.entry(model.name.clone()).or_default();
            of_model.entry(pool.role).or_default().push(pool.name.clone());
            matching.pools.insert(pool.name.clone(), wanted);
        }
        matching
    }

    /// All pools, by name.
    pub fn pools(&self) -> impl Iterator<Item = (&PoolName, &Wanted)> {
        self.pools.iter()
    }

    /// The pool of the policy to which engines of this pool of the fleet belong.
    ///
    /// # Errors
    /// Why they belong to none.
    pub fn pool_of(&self, key: &PoolKey) -> Result<(&PoolName, &Wanted), Stranger> {
        if let Some(declared) = &key.pool {
            let (name, wanted) = self.pools.get_key_value(declared).ok_or(Stranger::Pool)?;
            if key.model.as_ref().is_some_and(|model| *model != wanted.model) {
                return Err(Stranger::Model);
            }
            return if key.role == wanted.role { Ok((name, wanted)) } else { Err(Stranger::Role) };
        }
        let model = key.model.as_ref().ok_or(Stranger::Unnamed)?;
        let of_model = self.models.get(model).ok_or(Stranger::ModelUnknown)?;
        match of_model.get(&key.role).map(Vec::as_slice) {
            None | Some([]) => Err(Stranger::RoleUnknown),
            Some([only]) => self.pools.get_key_value(only).ok_or(Stranger::Pool),
            Some(_) => Err(Stranger::Ambiguous),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(model: Option<&str>, pool: Option<&str>, role: Role) -> PoolKey {
        PoolKey {
            model: model.map(|model| ModelName::parse(model).unwrap()),
            pool: pool.map(|pool| PoolName::parse(pool).unwrap()),
            role,
        }
    }

    #[test]
    fn a_declared_pool_counts_and_else_the_only_one_of_model_and_role() {
        let policy: Policy = serde_saphyr::from_str(
            "models:
- {name: a, slo: {ttft: {limit: 1s}}, pools: [{name: one, max: 2}]}
- {name: b, pools: [{name: left, max: 2}, {name: right, max: 2}, {name: p, role: prefill, max: 1}]}",
        )
        .unwrap();
        let matching = Matching::new(&policy);
        let of = |model, pool, role| {
            matching.pool_of(&key(model, pool, role)).map(|(name, _)| name.as_str().to_owned())
        };
        let aggregated = Role::Aggregated;
        assert_eq!(of(Some("a"), None, aggregated).as_deref(), Ok("one"));
        assert_eq!(of(None, Some("right"), aggregated).as_deref(), Ok("right"), "no model told yet");
        assert_eq!(of(Some("b"), Some("left"), aggregated).as_deref(), Ok("left"));
        assert_eq!(of(Some("b"), None, Role::Prefill).as_deref(), Ok("p"));
        assert_eq!(of(Some("b"), None, aggregated), Err(Stranger::Ambiguous));
        assert_eq!(of(Some("b"), None, Role::Decode), Err(Stranger::RoleUnknown));
        assert_eq!(of(Some("a"), Some("left"), aggregated), Err(Stranger::Model));
        assert_eq!(of(Some("b"), Some("left"), Role::Decode), Err(Stranger::Role));
        assert_eq!(of(Some("a"), Some("two"), aggregated), Err(Stranger::Pool));
        assert_eq!(of(Some("c"), None, aggregated), Err(Stranger::ModelUnknown));
        assert_eq!(of(None, None, aggregated), Err(Stranger::Unnamed));
        let (_, wanted) = matching.pool_of(&key(Some("a"), None, aggregated)).unwrap();
        assert_eq!((wanted.ttft, wanted.itl), (Some(Micros(1_000_000)), None));
    }
}
