//! Proofs about a tree that is read once, from some place on: that a leaf is in it, and that it only grew.
//!
//! RFC 9162 §2.1.3.1 and §2.1.4.1. Both are the way from one node to the root, so one [`Tracker`] makes both.

use super::merkle::{Frontier, Hash, node_hash, root_of};

/// Follows one node while the tree grows, and keeps its way to the root.
pub(super) struct Tracker {
    tree: Frontier,
    /// Where the node, or what it became part of, stands among the peaks.
    at: usize,
    path: Vec<Hash>,
}

impl Tracker {
    /// Adds a leaf to `tree` and follows it.
    pub(super) fn of_leaf(mut tree: Frontier, leaf: Hash) -> Self {
        let mut path = Vec::new();
        tree.append_seen(leaf, |_, left, _| path.push(*left));
        Self { at: tree.peaks().len() - 1, tree, path }
    }

    /// Follows the last peak of `tree`: its way is the proof that a later tree has grown from this one. An empty tree
    /// has none, and needs no proof.
    pub(super) fn of_tree(tree: Frontier) -> Option<Self> {
        let at = tree.peaks().len().checked_sub(1)?;
        // A tree that is one complete subtree is known by its root: RFC 9162 leaves it out.
        let path = if at == 0 { Vec::new() } else { vec![tree.peaks()[at]] };
        Some(Self { tree, at, path })
    }

    /// Adds a leaf.
    pub(super) fn append(&mut self, leaf: Hash) {
        let Self { tree, at, path } = self;
        let mut followed = *at;
        let mut right_is_ours = false;
        tree.append_seen(leaf, |place, left, right| {
            if right_is_ours {
                path.push(*left);
                followed = place;
            } else if place == followed {
                path.push(*right);
                right_is_ours = true;
            }
        });
        *at = followed;
    }

    /// The tree as it is now.
    #[cfg(test)]
    fn tree(&self) -> &Frontier {
        &self.tree
    }

    /// The way to the root as it is now.
    pub(super) fn path(&self) -> Vec<Hash> {
        let mut path = self.path.clone();
        path.extend(root_of(&self.tree.peaks()[self.at + 1..]));
        path.extend(self.tree.peaks()[..self.at].iter().rev());
        path
    }
}

/// RFC 9162 §2.1.4.2: whether the tree of `size` leaves under `root` has grown from that of `old_size` under `old_root`.
pub(super) fn has_grown(old_size: u64, old_root: &Hash, size: u64, root: &Hash, path: &[Hash]) -> bool {
    if old_size == 0 || old_size >= size {
        return old_size <= size && path.is_empty() && (old_size == 0 || old_root == root);
    }
    let mut steps = path.iter();
    let mut first = *old_root;
    if !old_size.is_power_of_two() {
        let Some(step) = steps.next() else { return false };
        first = *step;
    }
    let (mut place, mut last) = (old_size - 1, size - 1);
    while place & 1 == 1 {
        place >>= 1;
        last >>= 1;
    }
    let (mut old, mut new) = (first, first);
    for step in steps {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            old = node_hash(step, &old);
            new = node_hash(step, &new);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, step);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && old == *old_root && new == *root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit_log::merkle::{Batch, leaf_hash, root_of_path};

    const SIZE_MAX: u64 = 70;

    fn leaf(number: u64) -> Hash {
        leaf_hash(&number.to_be_bytes())
    }

    fn tree(size: u64) -> Frontier {
        let mut tree = Frontier::default();
        (0..size).for_each(|number| tree.append(leaf(number)));
        tree
    }

    #[test]
    fn a_leaf_is_proven_in_every_later_tree_wherever_reading_began() {
        for index in 0..SIZE_MAX {
            let mut tracker = Tracker::of_leaf(tree(index), leaf(index));
            for size in index + 1..SIZE_MAX {
                let root = tracker.tree().root();
                assert_eq!((tracker.tree().size(), root), (size, tree(size).root()));
                assert_eq!(root_of_path(leaf(index), index, size, &tracker.path()), Some(root), "{index} of {size}");
                let whole = Batch::new(&Frontier::default(), (0..size).map(leaf).collect());
                assert_eq!(tracker.path(), whole.path(index));
                tracker.append(leaf(size));
            }
        }
    }

    #[test]
    fn a_tree_is_proven_to_have_grown_from_each_earlier_one_and_from_no_other() {
        for old in 1..SIZE_MAX {
            let old_root = tree(old).root();
            let mut tracker = Tracker::of_tree(tree(old)).expect("it has leaves");
            for size in old..SIZE_MAX {
                let (root, path) = (tracker.tree().root(), if size == old { Vec::new() } else { tracker.path() });
                assert!(has_grown(old, &old_root, size, &root, &path), "{old} to {size}");
                assert!(!has_grown(old, &leaf(old), size, &root, &path), "another old root");
                assert!(!has_grown(old, &old_root, size, &leaf(old), &path), "another new root");
                assert!(old == size || !has_grown(old + 1, &old_root, size, &root, &path), "another old size");
                assert!(!has_grown(old, &old_root, size, &root, &[&path[..], &[leaf(old)]].concat()), "a longer path");
                if let Some(shorter) = path.len().checked_sub(1) {
                    assert!(!has_grown(old, &old_root, size, &root, &path[..shorter]), "a shorter path");
                }
                tracker.append(leaf(size));
            }
        }
        assert!(Tracker::of_tree(Frontier::default()).is_none());
        assert!(has_grown(0, &tree(0).root(), 5, &tree(5).root(), &[]));
        assert!(!has_grown(6, &tree(6).root(), 5, &tree(5).root(), &[]));
    }
}
