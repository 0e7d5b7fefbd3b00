//! Least squares of relative distances, with coefficients that are not negative, and robust against outliers.

/// Distances up to this share count in full, those beyond by their root: a row that was measured wrong does not bend the
/// curve (Huber's weights).
const HUBER: f64 = 0.05;
/// How often weights are found anew.
const ROUNDS: usize = 8;

/// The coefficients that are not negative and bring Σ coefficient × feature nearest to the times, as shares of these;
/// None where no coefficients are determined.
pub(crate) fn fit<const N: usize>(rows: &[([f64; N], f64)]) -> Option<[f64; N]> {
    let mut weights = vec![1.0; rows.len()];
    let mut found = None;
    for _ in 0..ROUNDS {
        let coefficients = weighted(rows, &weights)?;
        for (weight, (features, time)) in weights.iter_mut().zip(rows) {
            let distance = (dot(&coefficients, features) / time - 1.0).abs();
            *weight = if distance <= HUBER { 1.0 } else { HUBER / distance };
        }
        found = Some(coefficients);
    }
    found
}

/// The mean distance, as a share.
pub(crate) fn distance<const N: usize>(rows: &[([f64; N], f64)], coefficients: &[f64; N]) -> f64 {
    let each = rows.iter().map(|(features, time)| (dot(coefficients, features) / time - 1.0).abs());
    each.sum::<f64>() / rows.len().max(1) as f64
}

fn dot<const N: usize>(one: &[f64; N], other: &[f64; N]) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

/// The normal equations of relative distances, solved for every set of coefficients that are not 0: with five at most there
/// are few, and the best one without a negative coefficient is the solution.
fn weighted<const N: usize>(rows: &[([f64; N], f64)], weights: &[f64]) -> Option<[f64; N]> {
    let mut gram = [[0.0; N]; N];
    let mut right = [0.0; N];
    for ((features, time), weight) in rows.iter().zip(weights) {
        let relative = features.map(|feature| feature / time);
        for i in 0..N {
            right[i] += weight * relative[i];
            for j in 0..N {
                gram[i][j] += weight * relative[i] * relative[j];
            }
        }
    }
    // Features differ by nine orders of magnitude: each is taken as a multiple of its own length.
    let scale: [f64; N] = std::array::from_fn(|i| gram[i][i].sqrt());
    for i in 0..N {
        right[i] /= scale[i].max(f64::MIN_POSITIVE);
        for j in 0..N {
            gram[i][j] /= (scale[i] * scale[j]).max(f64::MIN_POSITIVE);
        }
    }
    let mut best: Option<(f64, [f64; N])> = None;
    for set in 1_u32..1 << N {
        let places: Vec<usize> = (0..N).filter(|place| set >> place & 1 == 1).collect();
        if places.iter().any(|place| scale[*place] <= 0.0) {
            continue;
        }
        let Some(solution) = solve(&gram, &right, &places) else { continue };
        if solution.iter().any(|value| *value < 0.0) {
            continue;
        }
        // What is explained of the sum of squares: the more, the nearer.
        let explained: f64 = places.iter().zip(&solution).map(|(place, value)| right[*place] * value).sum();
        if best.as_ref().is_none_or(|(most, _)| explained > *most) {
            let mut coefficients = [0.0; N];
            for (place, value) in places.iter().zip(&solution) {
                coefficients[*place] = value / scale[*place];
            }
            best = Some((explained, coefficients));
        }
    }
    best.map(|(_, coefficients)| coefficients)
}

/// Solves the rows and columns `places` of a symmetric system by Cholesky's decomposition; None where it is singular.
fn solve<const N: usize>(gram: &[[f64; N]; N], right: &[f64; N], places: &[usize]) -> Option<Vec<f64>> {
    let n = places.len();
    let mut lower = [[0.0; N]; N];
    for i in 0..n {
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
            let rest = gram[places[i]][places[j]] - known;
            if i == j {
                // Columns are of length 1, so that this is the share that the columns before do not explain.
                if rest <= 1e-11 {
                    return None;
                }
                lower[i][i] = rest.sqrt();
            } else {
                lower[i][j] = rest / lower[j][j];
            }
        }
    }
    let mut solution = vec![0.0; n];
    for i in 0..n {
        let known: f64 = (0..i).map(|k| lower[i][k] * solution[k]).sum();
        solution[i] = (right[places[i]] - known) / lower[i][i];
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|k| lower[k][i] * solution[k]).sum();
        solution[i] = (solution[i] - known) / lower[i][i];
    }
    Some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(of: impl Fn(f64) -> f64) -> Vec<([f64; 3], f64)> {
        (1..40).map(f64::from).map(|x| ([1.0, x, x * x], of(x))).collect()
    }

    #[test]
    fn what_a_line_made_is_found_again() {
        let found = fit(&rows(|x| 5.0 + 0.3 * x + 0.002 * x * x)).unwrap();
        for (found, truth) in found.iter().zip([5.0, 0.3, 0.002]) {
            assert!((found / truth - 1.0).abs() < 1e-6, "{found} {truth}");
        }
    }

    #[test]
    fn no_coefficient_is_negative() {
        let found = fit(&rows(|x| 50.0 - x)).unwrap();
        assert!(found.iter().all(|value| *value >= 0.0), "{found:?}");
        // Falling times are best met by a constant.
        assert!(found[1].abs() < 1e-9 && found[2].abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn an_outlier_does_not_bend_the_curve() {
        let mut rows = rows(|x| 5.0 + 0.3 * x);
        rows[20].1 *= 3.0;
        let found = fit(&rows).unwrap();
        assert!((dot(&found, &[1.0, 30.0, 900.0]) / 14.0 - 1.0).abs() < 0.02, "{found:?}");
    }

    #[test]
    fn what_is_not_determined_is_told() {
        assert_eq!(fit::<2>(&[]), None);
        // One column alone explains it all: the other is left at 0.
        let found = fit(&[([2.0, 2.0], 4.0), ([3.0, 3.0], 6.0)]).unwrap();
        assert!((found[0] + found[1] - 2.0).abs() < 1e-9, "{found:?}");
    }
}
