"""What samples are worth: Fréchet distance, entropy, molecules, the judge."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unmask.evaluation import judges as quality


def test_frechet_distance_is_that_of_normal_laws():
    r = np.random.default_rng(0)
    one, other = r.normal(size=(400, 4)), 2 * r.normal(size=(300, 4)) + 1
    for x in (one, other):  # exact moments: whitened, then scaled
        x -= x.mean(0)
        x @= np.linalg.inv(np.linalg.cholesky(np.cov(x.T)).T)
    # N(0, I) against N(m, diag(s^2)): |m|^2 + sum (1 - s)^2
    shift, scale = np.array([1.0, 0, -2, 0]), np.array([1.0, 2, 3, 0.5])
    assert quality.frechet(one, other * scale + shift) == pytest.approx(5 + ((1 - scale) ** 2).sum())
    assert quality.frechet(one, one) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_correlated_features_and_of_few():
    r = np.random.default_rng(1)
    mix = r.normal(size=(3, 3))
    one, other = r.normal(size=(50, 3)) @ mix, r.normal(size=(40, 3)) @ mix.T
    both = np.cov(one.T) @ np.cov(other.T)
    gap = one.mean(0) - other.mean(0)
    trace = np.trace(np.cov(one.T)) + np.trace(np.cov(other.T))
    expected = gap @ gap + trace - 2 * np.sqrt(np.linalg.eigvals(both)).real.sum()
    assert quality.frechet(one, other) == pytest.approx(expected)
    assert quality.frechet(one[:2], other[:2]) >= -1e-9  # singular covariances


@pytest.mark.parametrize("shapes", [((3, 2), (3, 4)), ((1, 2), (3, 2)), ((3,), (3, 2))])
def test_features_of_the_wrong_shape_are_refused(shapes):
    with pytest.raises(ValueError, match="expected"):
        quality.frechet(*(np.zeros(s) for s in shapes))


def test_entropy_counts_symbols_of_all_texts():
    assert quality.entropy(["ab", "ba"]) == pytest.approx(math.log(2))
    assert quality.entropy(["aaaa"]) == 0
    assert quality.entropy([["the", "cat"], ["the", "dog"]]) == pytest.approx(1.5 * math.log(2))
    assert math.isnan(quality.entropy([]))


def test_molecules_are_valid_unique_and_novel():
    pytest.importorskip("rdkit")
    found = quality.molecules(["CCO", "OCC", "c1ccccc1", "C1", "", "C(C)(C)(C)(C)C", "CCN"], {"CCO"})
    assert (found.count, found.valid, found.unique, found.novel) == (7, 4, 3, 2)
    assert found.canonical == ("CCO", "CCO", "c1ccccc1", "CCN")


def test_the_judge_prefers_english_to_shuffled_words():
    pytest.importorskip("pocketsphinx")
    text = "it is a truth universally acknowledged that a single man in possession of a good fortune"
    shuffled = "of universally a possession truth single is acknowledged man good a that in it fortune a"
    assert quality.judged([text]) + 1 < quality.judged([shuffled])
    assert quality.judged(["qqqq zzzz"]) == pytest.approx(quality.UNKNOWN)
    assert quality.judged([]) == 0


def test_image_features_tell_digits_from_noise():
    pytest.importorskip("efficientnet_lite_pytorch")
    r = np.random.default_rng(0)
    blobs = np.zeros((3, 60, 28, 28), np.uint8)
    for image in blobs[:2].reshape(-1, 28, 28):
        x, y = r.integers(4, 18, 2)
        image[x : x + 7, y : y + 5] = 255
    blobs[2] = r.integers(0, 256, (60, 28, 28))
    one, other, noise = map(quality.efficientnet, blobs)
    assert one.shape == (60, 1280)
    assert quality.frechet(one, other) < quality.frechet(one, noise) / 4
    coloured = quality.efficientnet(np.repeat(blobs[0][..., None], 3, axis=3))
    np.testing.assert_allclose(coloured, one, atol=1e-4)


@pytest.mark.parametrize(
    "images", [np.zeros((2, 4, 4)), np.zeros((2, 4, 4, 2), np.uint8), np.zeros(3, np.uint8)]
)
def test_images_of_another_form_are_refused(images):
    with pytest.raises(ValueError, match="expected uint8"):
        quality.efficientnet(images)
