"""What is learnt from the graph itself, or from single images, rather than from a run's perturbations.

bound        an upper bound of the global Lipschitz constant, operator by operator
gradients    derivatives and attacks around a run's images
frequency    section 2.2: what reordering noise does to the first convolution
landscape    Fig. 2: the score on a plane through one image
"""
