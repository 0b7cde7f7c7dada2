//! "Did you mean": the known word nearest to a mistyped one.

/// More typing errors than this, and the words have nothing to do with each other.
const DISTANCE_MAX: usize = 2;

/// The candidate nearest to `word`, if one is near.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = DISTANCE_MAX.min(word.chars().count() / 2);
    let rated = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate));
    rated.filter(|&(distance, _)| distance <= allowed).min().map(|(_, candidate)| candidate)
}

/// How many characters must be inserted, removed, replaced or swapped with their neighbour.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, &a) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, &b) in right.iter().enumerate() {
            let replaced = above[column] + usize::from(a != b);
            let mut best = replaced.min(above[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && a == right[column - 1] && left[row - 1] == b {
                best = best.min(before[column - 1] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_word() {
        let words = ["listen", "tls_key", "register_wait"];
        assert_eq!(nearest("lisetn", words), Some("listen"));
        assert_eq!(nearest("tlskey", words), Some("tls_key"));
        assert_eq!(nearest("register_wiat", words), Some("register_wait"));
    }

    #[test]
    fn an_unrelated_word_finds_none() {
        assert_eq!(nearest("colour", ["listen", "tls_key"]), None);
        assert_eq!(nearest("x", ["a"]), None);
        assert_eq!(nearest("", ["a"]), None);
    }
}
