"""What the papers' figures show and what their texts claim of them, where there is no table to print beside ours."""

from __future__ import annotations

from collections.abc import Mapping

# By id, in our words.
SHOWN: Mapping[str, str] = {
    "sonet/theorem": (
        "Theorem 3.1: with a symmetric part that is negative, the real parts of the Jacobian's eigenvalues "
        "are negative at each instant, from which the paper concludes that perturbations do not grow along "
        "the trajectory."
    ),
    "optimal-control/figure1": (
        "Two clouds of eigenvalues of the last fully connected layer: for the constrained training all inside "
        "the unit circle, for the vanilla training spread over the complex plane."
    ),
    "optimal-control/cost": ("One sentence: adversarial training takes about ten times the GPU time of theirs."),
    "natural-robustness/figure1": (
        "Accuracy of eleven ResNet56 with h = 1 to 1e-10, on clean CIFAR-10 images and on images that FGSM "
        "changed on a net of three blocks, with ε = 0.1, 0.3, 0.5: smaller h is no more robust, and at 1e-8 "
        "and below clean accuracy falls."
    ),
    "natural-robustness/figure2": (
        "Accuracy against ε under DI²-FGSM, up to 0.5 on MNIST and 50/255 on CIFAR-10: on MNIST the neural "
        "ODE stays high while ResNet falls steeply, on CIFAR-10 the neural ODE loses much less than ResNet50."
    ),
    "natural-robustness/figure3": (
        "The same under the Boundary attack with 1,000 queries: on MNIST it has almost no effect on the "
        "neural ODE; on CIFAR-10 both fall, and the neural ODE is above ResNet50 for large ε."
    ),
    "natural-robustness/theorems": (
        "Theorems 3.1 and 3.2 bound how the error that a perturbation makes grows through residual blocks and "
        "through an ODE; section 3.3 likens PolyNet, FractalNet and RevNet to numerical schemes."
    ),
    "gradient-regularization/figure1": (
        "Error against the size of the attack on CIFAR-10, under Linf and under L2, for the undefended net "
        "and nets with λ = 0.1 and 1: the stronger the penalty, the higher the error on clean images and the "
        "slower its rise."
    ),
    "gradient-regularization/imagenet": (
        "Tables 1, 2 and B.3 have three rows each on ImageNet-1k, and figure B.2 shows top-5 error against "
        "the size of the attack there: it rises more slowly the larger λ is."
    ),
}
