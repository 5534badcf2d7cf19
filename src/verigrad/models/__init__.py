"""Classifiers, the ODE blocks inside them, their twins under other solvers, and how they are loaded and saved."""
