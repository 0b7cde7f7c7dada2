//! The Merkle tree of RFC 9162 §2.1 over the log's records.
//!
//! The log never looks back, so neither does the tree: it keeps the [`Frontier`], one hash for each set bit of its size,
//! and while a batch is appended the few nodes the batch's own proofs need ([`Batch`]). It knows neither files nor records.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// A SHA-256 value.
pub(super) type Hash = [u8; 32];

/// RFC 9162 §2.1.1: the hash of a leaf, told apart from a node by its first byte.
pub(super) fn leaf_hash(data: &[u8]) -> Hash {
    sha256_of(&[&[0x00], data])
}

/// RFC 9162 §2.1.1: the hash of an inner node.
pub(super) fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256_of(&[&[0x01], left, right])
}

/// SHA-256 of the parts, one after the other.
pub(super) fn sha256_of(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    to_hash(context.finish().as_ref())
}

fn to_hash(bytes: &[u8]) -> Hash {
    bytes.try_into().expect("SHA-256 gives 32 bytes")
}

/// A tree reduced to the roots of its complete subtrees: all that appending and the root need.
#[derive(Clone, Default)]
pub(super) struct Frontier {
    size: u64,
    /// Invariant: one for each set bit of `size`, the highest bit first.
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The tree of `size` leaves with these peaks; `None` if such a tree has another number of them.
    pub(super) fn from_peaks(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (u64::from(size.count_ones()) == peaks.len() as u64).then_some(Self { size, peaks })
    }

    /// One hash for each set bit of the size, the highest first.
    pub(super) fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds a leaf.
    pub(super) fn append(&mut self, leaf: Hash) {
        self.append_seen(leaf, |_, _, _| ());
    }

    /// Adds a leaf and tells each pair of nodes that become one: the place of the left one among the peaks, and both.
    pub(super) fn append_seen(&mut self, leaf: Hash, mut joined: impl FnMut(usize, &Hash, &Hash)) {
        let mut node = leaf;
        let mut size = self.size;
        while size & 1 == 1 {
            let left = self.peaks.pop().expect("there is a peak for each set bit of the size");
            joined(self.peaks.len(), &left, &node);
            node = node_hash(&left, &node);
            size >>= 1;
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// How many leaves there are.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The root; of an empty tree the hash of nothing, as RFC 9162 §2.1.1 has it.
    pub(super) fn root(&self) -> Hash {
        root_of(&self.peaks).unwrap_or_else(|| to_hash(digest(&SHA256, &[]).as_ref()))
    }

    /// The peak over 2^`level` leaves; that bit of the size is set.
    fn peak(&self, level: usize) -> Hash {
        self.peaks[self.peaks_above(level)]
    }

    /// The root over the leaves behind all peaks of `level` and higher; `None` if there are no such leaves.
    fn tail(&self, level: usize) -> Option<Hash> {
        let above = (self.size >> level).count_ones() as usize;
        root_of(&self.peaks[above..])
    }

    fn peaks_above(&self, level: usize) -> usize {
        (self.size >> level >> 1).count_ones() as usize
    }
}

/// The root over neighbouring peaks; `None` if there are none.
pub(super) fn root_of(peaks: &[Hash]) -> Option<Hash> {
    peaks.iter().rev().copied().reduce(|right, left| node_hash(&left, &right))
}

/// Leaves appended together, with the nodes that prove each of them under the root that follows.
pub(super) struct Batch {
    after: Frontier,
    levels: Vec<Level>,
}

/// The complete subtrees over 2^level leaves that hold a leaf of the batch or stand to the left of one that does.
struct Level {
    /// The number of the first of them, counted from the left edge of the tree.
    first: u64,
    nodes: Vec<Hash>,
}

impl Batch {
    /// The tree `before` with `leaves` behind it.
    pub(super) fn new(before: &Frontier, leaves: Vec<Hash>) -> Self {
        let mut after = before.clone();
        leaves.iter().for_each(|leaf| after.append(*leaf));

        let height = u64::BITS - after.size.leading_zeros();
        let mut levels = Vec::with_capacity(height as usize);
        let (mut first, mut nodes) = (before.size, leaves);
        for level in 0..height as usize {
            // The bit of `before.size` at this level is set: the peak there is the left half of the next pair.
            if first & 1 == 1 {
                nodes.insert(0, before.peak(level));
                first -= 1;
            }
            let (pairs, _) = nodes.as_chunks::<2>();
            let above = pairs.iter().map(|[left, right]| node_hash(left, right)).collect();
            levels.push(Level { first, nodes: std::mem::replace(&mut nodes, above) });
            first >>= 1;
        }
        Self { after, levels }
    }

    /// The tree with the batch.
    pub(super) fn after(&self) -> &Frontier {
        &self.after
    }

    /// RFC 9162 §2.1.3.1: the path of a leaf of this batch to the root after it.
    pub(super) fn path(&self, index: u64) -> Vec<Hash> {
        let size = self.after.size;
        let sibling_at = |(level, row): (usize, &Level)| {
            let sibling = index >> level ^ 1;
            if (sibling + 1) << level <= size {
                let place = usize::try_from(sibling - row.first).expect("a batch fits into memory");
                Some(row.nodes[place])
            } else if sibling << level < size {
                // The right sibling is cut off by the tree's right edge.
                self.after.tail(level)
            } else {
                None
            }
        };
        self.levels.iter().enumerate().filter_map(sibling_at).collect()
    }
}

/// RFC 9162 §2.1.3.2: the root that `path` leads to; `None` if such a path cannot exist.
pub(super) fn root_of_path(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut place, mut last, mut root) = (index, size - 1, leaf);
    for step in path {
        if last == 0 {
            return None;
        }
        if place & 1 == 1 || place == last {
            root = node_hash(step, &root);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            root = node_hash(&root, step);
        }
        place >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(root)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit_log::encoding::hex;

    #[test]
    fn the_empty_and_the_first_trees_have_the_roots_of_rfc_9162() {
        let mut tree = Frontier::default();
        assert_eq!(hex(&tree.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        // The leaves and roots of the reference test vectors of Certificate Transparency.
        for (leaf, root) in [
            (&[][..], "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (&[0x00], "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            (&[0x10], "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
            (&[0x20, 0x21], "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
            (&[0x30, 0x31], "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
        ] {
            tree.append(leaf_hash(leaf));
            assert_eq!(hex(&tree.root()), root);
        }
    }

    proptest! {
        #[test]
        fn every_leaf_of_every_batch_is_proven_under_the_naive_root(batches in prop::collection::vec(1..40_usize, 1..8)) {
            let mut leaves: Vec<Hash> = Vec::new();
            let mut tree = Frontier::default();
            for count in batches {
                let fresh: Vec<Hash> = (0..count).map(|n| leaf_hash(&(leaves.len() + n).to_be_bytes())).collect();
                let before = leaves.len();
                leaves.extend(&fresh);
                let batch = Batch::new(&tree, fresh);
                tree = batch.after().clone();

                prop_assert_eq!(tree.size(), leaves.len() as u64);
                prop_assert_eq!(tree.root(), naive_root(&leaves));
                for index in before..leaves.len() {
                    let path = batch.path(index as u64);
                    prop_assert_eq!(&path, &naive_path(index, &leaves));
                    let root = root_of_path(leaves[index], index as u64, tree.size(), &path);
                    prop_assert_eq!(root, Some(tree.root()));
                }
            }
        }

        #[test]
        fn a_path_proves_no_other_leaf_place_or_size(size in 1..70_u64, at in 0..70_u64, other in 0..70_u64) {
            let index = at % size;
            let leaves: Vec<Hash> = (0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect();
            let batch = Batch::new(&Frontier::default(), leaves.clone());
            let (path, root) = (batch.path(index), batch.after().root());
            let leaf = leaves[usize::try_from(index).expect("small")];

            prop_assert_eq!(root_of_path(leaf, index, size, &path), Some(root));
            if other != index {
                prop_assert_ne!(root_of_path(leaf, other, size, &path), Some(root));
            }
            prop_assert_ne!(root_of_path(leaf_hash(b"another"), index, size, &path), Some(root));
            for cut in 0..path.len() {
                prop_assert_ne!(root_of_path(leaf, index, size, &path[..cut]), Some(root));
            }
            let longer: Vec<Hash> = path.iter().copied().chain([leaf]).collect();
            prop_assert_eq!(root_of_path(leaf, index, size, &longer), None);
        }
    }

    /// RFC 9162 §2.1.1, word for word.
    fn naive_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => sha256_of(&[]),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len()));
                node_hash(&naive_root(left), &naive_root(right))
            }
        }
    }

    /// RFC 9162 §2.1.3.1, word for word.
    fn naive_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let (left, right) = leaves.split_at(split(leaves.len()));
        let (mut path, sibling) = if index < left.len() {
            (naive_path(index, left), naive_root(right))
        } else {
            (naive_path(index - left.len(), right), naive_root(left))
        };
        path.push(sibling);
        path
    }

    /// The largest power of two smaller than `size`.
    fn split(size: usize) -> usize {
        size.next_power_of_two() / 2
    }
}
