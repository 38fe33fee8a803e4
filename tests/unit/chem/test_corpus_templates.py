"""Reaction templates of the corpus: each against a product written by hand."""

import pytest
from rdkit import Chem

from raycrp.chem.corpus import (
    REACTION_CLASSES,
)
from raycrp.chem.corpus_blocks import parse_block
from raycrp.chem.corpus_templates import ReactionTemplate, load_templates, read_templates
from raycrp.errors import DataError

BOC2O = "CC(C)(C)OC(=O)OC(=O)OC(C)(C)C"
MCPBA = "OOC(=O)c1cccc(Cl)c1"
OZONE = "[O-][O+]=O"

# template: (reactants in the order of its slots, product), both written by hand
HAND_WRITTEN: dict[str, tuple[tuple[str, ...], str]] = {
    "Williamson ether synthesis": (("Oc1ccc(CCO)cc1", "BrCc1ccncc1"), "OCCc1ccc(OCc2ccncc2)cc1"),
    "alcohol O-alkylation": (("OCC1CC1", "CCCBr"), "CCCOCC1CC1"),
    "phenol O-methylation": (("Oc1ccc(C=O)cc1", "CI"), "COc1ccc(C=O)cc1"),
    "acid O-alkylation": (("[Na+].[O-]C(=O)c1ccccc1", "CCBr"), "CCOC(=O)c1ccccc1"),
    "secondary amine N-alkylation": (("C1CCNCC1", "CS(=O)(=O)OCCc1ccccc1"), "C1CCN(CCc2ccccc2)CC1"),
    # aldehyde and ketone: the aldehyde reacts
    "reductive amination of an aldehyde": (
        ("O=Cc1ccc(C(C)=O)cc1", "Cl.C1COCCN1"),
        "CC(=O)c1ccc(CN2CCOCC2)cc1",
    ),
    "reductive amination of a ketone": (("O=C1CCCCC1", "NCc1ccccc1"), "C1CCCCC1NCc1ccccc1"),
    "reductive N-methylation": (("C1CNCC[C@H]1CO", "C=O"), "CN1CC[C@H](CO)CC1"),
    # 2-chloro reacts, 3-bromo stays
    "SNAr amination": (("Clc1ncc(Br)cc1", "C1COCCN1"), "Brc1cnc(N2CCOCC2)cc1"),
    "SNAr aryl ether formation": (
        ("Fc1ccc(cc1)[N+](=O)[O-]", "Oc1ccc(Cl)cc1"),
        "Clc1ccc(cc1)Oc1ccc(cc1)[N+](=O)[O-]",
    ),
    "SNAr alkoxide substitution": (("Clc1ncccn1", "OCC1CC1"), "c1cnc(nc1)OCC1CC1"),
    # 5-bromo reacts, 2-chloro stays
    "Buchwald-Hartwig amination": (("Clc1ncc(Br)cc1", "C1COCCN1"), "Clc1ncc(cc1)N1CCOCC1"),
    "Chan-Lam amination": (("OB(O)c1ccc(C)cc1", "Nc1ccccc1"), "Cc1ccc(cc1)Nc1ccccc1"),
    "Chan-Lam etherification": (("OB(O)c1ccc(C)cc1", "Oc1ccccc1"), "Cc1ccc(cc1)Oc1ccccc1"),
    "Ullmann ether synthesis": (("Ic1ccc(Br)cc1", "Oc1ccccc1"), "Brc1ccc(cc1)Oc1ccccc1"),
    "azole N-alkylation": (("c1ccc2[nH]ccc2c1", "CI"), "Cn1ccc2ccccc21"),
    "azole N-arylation": (("c1c[nH]nc1", "Ic1ccc(C)cc1"), "Cc1ccc(cc1)n1cccn1"),
    "Mitsunobu aryl ether formation": (("Oc1ccccc1", "OCCC"), "CCCOc1ccccc1"),
    # (S)-2-butanol gives the (R)-ether
    "Mitsunobu aryl ether formation with inversion": (
        ("Oc1ccccc1", "CC[C@H](C)O"),
        "CC[C@@H](C)Oc1ccccc1",
    ),
    "thiol S-alkylation": (("Sc1ccccc1", "CCBr"), "CCSc1ccccc1"),
    "epoxide opening by an amine": (("C1OC1CCC", "C1CCNC1"), "OC(CCC)CN1CCCC1"),
    "aza-Michael addition": (("C1CCNC1", "C=CC#N"), "N#CCCN1CCCC1"),
    "Gabriel alkylation": (("O=C1[N-]C(=O)c2ccccc21.[K+]", "CCCBr"), "CCCN1C(=O)c2ccccc2C1=O"),
    # the aliphatic amine reacts before the aniline and the alcohol
    "amide coupling": (("OC(=O)c1ccccc1", "NCc1ccc(N)cc1"), "O=C(NCc1ccc(N)cc1)c1ccccc1"),
    "amine acylation with an acid chloride": (
        ("ClC(=O)CC", "Nc1ccc(CO)cc1"),
        "CCC(=O)Nc1ccc(CO)cc1",
    ),
    "sulfonamide formation": (("ClS(=O)(=O)c1ccccc1", "CNC"), "CN(C)S(=O)(=O)c1ccccc1"),
    "amine acetylation": (("Nc1ccc(Br)cc1", "CC(=O)OC(C)=O"), "CC(=O)Nc1ccc(Br)cc1"),
    "alcohol acetylation": (("OCc1ccccc1", "CC(=O)OC(C)=O"), "CC(=O)OCc1ccccc1"),
    "ester formation from an acid chloride": (
        ("ClC(=O)c1ccccc1", "Oc1ccc(C)cc1"),
        "O=C(Oc1ccc(C)cc1)c1ccccc1",
    ),
    "Fischer esterification": (("OC(=O)C1CC1", "CO"), "COC(=O)C1CC1"),
    "Steglich esterification": (
        ("OC(=O)/C=C/C", "C[C@H](O)CC"),
        "C/C=C/C(=O)O[C@@H](C)CC",
    ),
    "urea formation from an isocyanate": (("O=C=Nc1ccccc1", "CNC"), "CN(C)C(=O)Nc1ccccc1"),
    "carbamate formation from an isocyanate": (("O=C=Nc1ccccc1", "OCC"), "CCOC(=O)Nc1ccccc1"),
    "thiourea formation": (("S=C=Nc1ccccc1", "NCC"), "CCNC(=S)Nc1ccccc1"),
    "carbamate formation from a chloroformate": (("Nc1ccccc1", "ClC(=O)OC"), "COC(=O)Nc1ccccc1"),
    "ester aminolysis": (("COC(=O)c1ccccc1", "NCC"), "CCNC(=O)c1ccccc1"),
    "Weinreb amide formation": (("OC(=O)c1ccccc1", "CNOC.Cl"), "CON(C)C(=O)c1ccccc1"),
    "primary amide formation": (("OC(=O)c1ccccc1", "[NH4+].[Cl-]"), "NC(=O)c1ccccc1"),
    "hydrazide formation": (("CCOC(=O)c1ccccc1", "NN.O"), "NNC(=O)c1ccccc1"),
    # iodide reacts before bromide
    "Suzuki coupling": (("Ic1ccc(Br)cc1", "[K+].F[B-](F)(F)c1ccncc1"), "Brc1ccc(cc1)-c1ccncc1"),
    "Heck reaction": (("Brc1ccccc1", "C=CC(=O)OC"), "COC(=O)/C=C/c1ccccc1"),
    "Heck reaction of a styrene": (("Ic1ccccc1", "C=Cc1ccc(C)cc1"), "Cc1ccc(/C=C/c2ccccc2)cc1"),
    "Sonogashira coupling": (("Ic1ccccc1", "C#CCCO"), "OCCC#Cc1ccccc1"),
    "Negishi coupling": (("Brc1ccccc1", "Br[Zn]CC1CC1"), "C1CC1Cc1ccccc1"),
    "Stille vinylation": (("Brc1ccccc1C", "C=C[Sn](CCCC)(CCCC)CCCC"), "C=Cc1ccccc1C"),
    "Grignard addition to an aldehyde": (("O=Cc1ccccc1", "Br[Mg]CC"), "CCC(O)c1ccccc1"),
    "Grignard addition to a ketone": (("CC(=O)c1ccccc1", "Cl[Mg]CC"), "CCC(C)(O)c1ccccc1"),
    "ketone synthesis from a Weinreb amide": (
        ("CON(C)C(=O)C1CC1", "Br[Mg]c1ccccc1"),
        "O=C(C1CC1)c1ccccc1",
    ),
    "Wittig methylenation": (
        ("CC(=O)c1ccccc1", "C[P+](c1ccccc1)(c1ccccc1)c1ccccc1.[Br-]"),
        "C=C(C)c1ccccc1",
    ),
    "Wittig olefination with a stabilised ylide": (
        ("O=CC1CC1", "CCOC(=O)C=P(c1ccccc1)(c1ccccc1)c1ccccc1"),
        "CCOC(=O)/C=C/C1CC1",
    ),
    "Horner-Wadsworth-Emmons olefination": (
        ("O=Cc1ccccc1", "CCOP(=O)(CC#N)OCC"),
        "N#C/C=C/c1ccccc1",
    ),
    "Claisen-Schmidt condensation": (
        ("O=Cc1ccncc1", "CC(=O)c1ccccc1"),
        "O=C(/C=C/c1ccncc1)c1ccccc1",
    ),
    "Knoevenagel condensation": (("O=Cc1ccccc1", "N#CCC#N"), "N#CC(C#N)=Cc1ccccc1"),
    "Doebner condensation": (("O=Cc1ccccc1", "OC(=O)CC(=O)O"), "OC(=O)/C=C/c1ccccc1"),
    "Henry reaction": (("O=Cc1ccccc1", "C[N+](=O)[O-]"), "OC(C[N+](=O)[O-])c1ccccc1"),
    "malonate alkylation": (
        ("CCOC(=O)CC(=O)OCC", "BrCc1ccccc1"),
        "CCOC(=O)C(Cc1ccccc1)C(=O)OCC",
    ),
    # para to the methoxy group
    "Friedel-Crafts acylation": (
        ("ClC(=O)c1ccccc1", "COc1ccccc1F"),
        "O=C(c1ccccc1)c1ccc(OC)c(F)c1",
    ),
    "aryllithium formylation": (("Brc1ccc(OC)cc1", "CN(C)C=O"), "O=Cc1ccc(OC)cc1"),
    "aryllithium carboxylation": (("Brc1ccc(OC)cc1", "O=C=O"), "OC(=O)c1ccc(OC)cc1"),
    "Ohira-Bestmann homologation": (
        ("O=Cc1ccccc1", "COP(=O)(OC)C(=[N+]=[N-])C(C)=O"),
        "C#Cc1ccccc1",
    ),
    "azide-alkyne cycloaddition": (("C#Cc1ccccc1", "CCN=[N+]=[N-]"), "CCn1cc(nn1)-c1ccccc1"),
    "Paal-Knorr pyrrole synthesis": (("CC(=O)CCC(=O)c1ccccc1", "NCC"), "CCn1c(C)ccc1-c1ccccc1"),
    "Fischer indole synthesis": (
        ("Cl.NNc1ccc(F)cc1", "CC(=O)c1ccccc1"),
        "Fc1ccc2[nH]c(cc2c1)-c1ccccc1",
    ),
    "1,2,4-oxadiazole synthesis": (("NC(=NO)c1ccccc1", "OC(=O)C1CC1"), "c1ccccc1-c1noc(n1)C1CC1"),
    "1,3,4-oxadiazole synthesis": (("NNC(=O)c1ccccc1", "OC(=O)C1CC1"), "c1ccccc1-c1nnc(o1)C1CC1"),
    "Knorr pyrazole synthesis": (("CC(=O)CC(C)=O", "NNc1ccccc1"), "Cc1cc(C)n(n1)-c1ccccc1"),
    "pyrazole synthesis from a 1,3-diketone": (
        ("O=C(CC(C)=O)c1ccccc1", "NN.O"),
        "Cc1cc(n[nH]1)-c1ccccc1",
    ),
    "Hantzsch thiazole synthesis": (("O=C(CBr)c1ccccc1", "NC(=S)CC"), "CCc1nc(cs1)-c1ccccc1"),
    "2-aminothiazole synthesis": (("O=C(CBr)c1ccccc1", "NC(N)=S"), "Nc1nc(cs1)-c1ccccc1"),
    "imidazopyridine synthesis": (
        ("Nc1ccccn1", "O=C(CBr)c1ccccc1"),
        "c1ccc2nc(cn2c1)-c1ccccc1",
    ),
    "imidazole synthesis from an amidine": (
        ("Cl.N=C(N)c1ccccc1", "O=C(CBr)c1ccc(C)cc1"),
        "Cc1ccc(cc1)-c1c[nH]c(n1)-c1ccccc1",
    ),
    "benzimidazole synthesis": (("Nc1ccccc1N", "O=CC1CC1"), "c1ccc2[nH]c(nc2c1)C1CC1"),
    "N-substituted benzimidazole synthesis": (
        ("CNc1ccccc1N", "O=Cc1ccccc1"),
        "Cn1c(nc2ccccc12)-c1ccccc1",
    ),
    "benzoxazole synthesis": (("Oc1ccccc1N", "OC(=O)c1ccccc1"), "c1ccc2oc(nc2c1)-c1ccccc1"),
    "quinoxaline synthesis": (("Nc1ccccc1N", "CC(=O)C(C)=O"), "Cc1nc2ccccc2nc1C"),
    "tetrazole synthesis": (("N#Cc1ccccc1", "[N-]=[N+]=[N-].[Na+]"), "c1ccccc1-c1nnn[nH]1"),
    "isoxazole synthesis": (("O/N=C/c1ccccc1", "C#CCCC"), "CCCc1cc(no1)-c1ccccc1"),
    "Boc protection": (("NCc1ccc(N)cc1", BOC2O), "CC(C)(C)OC(=O)NCc1ccc(N)cc1"),
    "Boc protection of an azole": (("c1ccc2[nH]ccc2c1", BOC2O), "CC(C)(C)OC(=O)n1ccc2ccccc21"),
    "Cbz protection": (("C1CCNCC1", "ClC(=O)OCc1ccccc1"), "O=C(OCc1ccccc1)N1CCCCC1"),
    "Fmoc protection": (
        ("C1CCNCC1", "ClC(=O)OCC1c2ccccc2-c2ccccc21"),
        "O=C(OCC1c2ccccc2-c2ccccc21)N1CCCCC1",
    ),
    "trityl protection": (
        ("NCC", "ClC(c1ccccc1)(c1ccccc1)c1ccccc1"),
        "CCNC(c1ccccc1)(c1ccccc1)c1ccccc1",
    ),
    # the primary alcohol is silylated, the phenol stays
    "TBS protection": (
        ("OCCc1ccc(O)cc1", "C[Si](C)(Cl)C(C)(C)C"),
        "CC(C)(C)[Si](C)(C)OCCc1ccc(O)cc1",
    ),
    "THP protection": (("OCC1CC1", "C1=COCCC1"), "C1CCOC(C1)OCC1CC1"),
    "MOM protection": (("Oc1ccccc1", "COCCl"), "COCOc1ccccc1"),
    "benzyl protection of a phenol": (("Oc1ccc(CCO)cc1", "BrCc1ccccc1"), "OCCc1ccc(OCc2ccccc2)cc1"),
    "acetal protection": (("CC(=O)c1ccccc1", "OCCO"), "CC1(OCCO1)c1ccccc1"),
    "Boc deprotection": (("CC(C)(C)OC(=O)N[C@@H](C)CO",), "N[C@@H](C)CO"),
    "Boc deprotection of an azole": (("CC(C)(C)OC(=O)n1ccc2ccccc12",), "c1ccc2[nH]ccc2c1"),
    "Cbz deprotection": (("O=C(OCc1ccccc1)N[C@@H](C)C(=O)OC",), "N[C@@H](C)C(=O)OC"),
    "Fmoc deprotection": (("O=C(OCC1c2ccccc2-c2ccccc21)NCCC",), "NCCC"),
    "trityl deprotection": (("CCNC(c1ccccc1)(c1ccccc1)c1ccccc1",), "CCN"),
    "N-benzyl hydrogenolysis": (("c1ccccc1CN1CCC(O)CC1",), "OC1CCNCC1"),
    "phthalimide deprotection": (("O=C1c2ccccc2C(=O)N1CCC#N",), "NCCC#N"),
    "methyl or ethyl ester hydrolysis": (
        ("CCOC(=O)[C@@H]1CCCN1C(=O)OC(C)(C)C",),
        "OC(=O)[C@@H]1CCCN1C(=O)OC(C)(C)C",
    ),
    "tert-butyl ester cleavage": (("COC(=O)CCC(=O)OC(C)(C)C",), "COC(=O)CCC(=O)O"),
    "benzyl ester hydrogenolysis": (("COC(=O)CCC(=O)OCc1ccccc1",), "COC(=O)CCC(=O)O"),
    "benzyl ether hydrogenolysis": (("COC(=O)c1ccc(OCc2ccccc2)cc1",), "COC(=O)c1ccc(O)cc1"),
    "silyl ether cleavage": (
        ("CC(C)(C)OC(=O)NCCO[Si](C)(C)C(C)(C)C",),
        "CC(C)(C)OC(=O)NCCO",
    ),
    "aryl methyl ether cleavage": (("COc1ccc(Br)cc1",), "Oc1ccc(Br)cc1"),
    "THP deprotection": (("C1CCOC(C1)OCC#C",), "OCC#C"),
    "MOM deprotection": (("COCOc1ccc(Br)cc1",), "Oc1ccc(Br)cc1"),
    "acetal deprotection": (("Brc1ccc(cc1)C1(C)OCCO1",), "CC(=O)c1ccc(Br)cc1"),
    "acetate hydrolysis": (("CC(=O)OCc1ccc(Br)cc1",), "OCc1ccc(Br)cc1"),
    # hydrogen reduces the nitro group and leaves the ketone, borohydride does the reverse
    "nitro hydrogenation": (("CC(=O)c1ccc(cc1)[N+](=O)[O-]",), "CC(=O)c1ccc(N)cc1"),
    "dissolving-metal nitro reduction": (("C=Cc1ccc(cc1)[N+](=O)[O-]",), "C=Cc1ccc(N)cc1"),
    "ketone reduction": (("CC(=O)c1ccc(cc1)[N+](=O)[O-]",), "CC(O)c1ccc(cc1)[N+](=O)[O-]"),
    "aldehyde reduction": (("O=Cc1ccc(C(C)=O)cc1",), "OCc1ccc(C(C)=O)cc1"),
    "Luche reduction": (("CC(=O)/C=C/c1ccccc1",), "CC(O)/C=C/c1ccccc1"),
    "ester reduction": (("COC(=O)c1ccc(F)cc1",), "OCc1ccc(F)cc1"),
    "lithium borohydride ester reduction": (("COC(=O)c1ccc(C#N)cc1",), "OCc1ccc(C#N)cc1"),
    "ester reduction to an aldehyde": (("CCOC(=O)CCc1ccccc1",), "O=CCCc1ccccc1"),
    "carboxylic acid reduction": (("COC(=O)c1ccc(cc1)C(=O)O",), "COC(=O)c1ccc(CO)cc1"),
    "nitrile reduction": (("N#Cc1ccc(F)cc1",), "NCc1ccc(F)cc1"),
    "nitrile hydrogenation": (("COC(=O)c1ccc(C#N)cc1",), "COC(=O)c1ccc(CN)cc1"),
    "nitrile reduction to an aldehyde": (("N#Cc1ccc(Br)cc1", "O"), "O=Cc1ccc(Br)cc1"),
    "amide reduction": (("CNC(=O)c1ccccc1",), "CNCc1ccccc1"),
    "alkene hydrogenation": (("CC(=O)/C=C/c1ccccc1",), "CC(=O)CCc1ccccc1"),
    "alkyne hydrogenation": (("C#CCc1ccccc1",), "CCCc1ccccc1"),
    "Lindlar reduction": (("CC#Cc1ccccc1",), "C/C=C\\c1ccccc1"),
    "Staudinger reduction": (("[N-]=[N+]=NCc1ccc(Br)cc1",), "NCc1ccc(Br)cc1"),
    "azide hydrogenation": (("[N-]=[N+]=N[C@@H](C)CC",), "N[C@@H](C)CC"),
    "hydrodehalogenation": (("Brc1ccc(C(=O)O)cc1",), "OC(=O)c1ccccc1"),
    "ketone deoxygenation": (("CCC(=O)c1ccc(F)cc1",), "CCCc1ccc(F)cc1"),
    "alcohol oxidation to an aldehyde": (("OCCc1ccccc1",), "O=CCc1ccccc1"),
    "alcohol oxidation to a ketone": (("C[C@H](O)c1ccccc1",), "CC(=O)c1ccccc1"),
    # manganese dioxide leaves the aliphatic alcohol
    "benzylic alcohol oxidation": (("OCCc1ccc(CO)cc1",), "OCCc1ccc(C=O)cc1"),
    "Jones oxidation": (("OCCc1ccccc1", "O=[Cr](=O)=O"), "OC(=O)Cc1ccccc1"),
    "Pinnick oxidation": (("O=Cc1ccccc1", "[Na+].[O-]Cl=O"), "OC(=O)c1ccccc1"),
    "sulfide oxidation to a sulfoxide": (("CSc1ccccc1", MCPBA), "CS(=O)c1ccccc1"),
    "sulfide oxidation to a sulfone": (("CSc1ccccc1", "OO", "OO"), "CS(=O)(=O)c1ccccc1"),
    "epoxidation": (("C=CCc1ccccc1", MCPBA), "C1OC1Cc1ccccc1"),
    "dihydroxylation": (("C=CCc1ccccc1", "O=[Os](=O)(=O)=O"), "OCC(O)Cc1ccccc1"),
    "oxidative alkene cleavage": (
        ("C=CCc1ccccc1", "[Na+].[O-][I+3]([O-])([O-])[O-]"),
        "O=CCc1ccccc1",
    ),
    "ozonolysis": (("C=C(C)c1ccccc1", OZONE), "CC(=O)c1ccccc1"),
    "pyridine N-oxidation": (("COC(=O)c1cccnc1", MCPBA), "COC(=O)c1ccc[n+]([O-])c1"),
    "Baeyer-Villiger oxidation": (("O=C1CCC(C)CC1", MCPBA), "O=C1CCC(C)CCO1"),
    "acid chloride formation": (("OC(=O)c1ccccc1", "ClS(Cl)=O"), "ClC(=O)c1ccccc1"),
    "Appel bromination": (("OCCc1ccccc1", "BrC(Br)(Br)Br"), "BrCCc1ccccc1"),
    "phosphorus tribromide bromination": (("OCc1ccccc1", "BrP(Br)Br"), "BrCc1ccccc1"),
    "alcohol chlorination": (("OCc1ccccc1", "ClS(Cl)=O"), "ClCc1ccccc1"),
    "alcohol fluorination": (("O[C@@H](C)CC", "CCN(CC)S(F)(F)F"), "F[C@H](C)CC"),
    # the primary alcohol reacts, the stereocentre is untouched
    "mesylation": (("OCC[C@@H](C)O", "CS(=O)(=O)Cl"), "CS(=O)(=O)OCC[C@@H](C)O"),
    "tosylation": (("OCC#C", "Cc1ccc(cc1)S(=O)(=O)Cl"), "C#CCOS(=O)(=O)c1ccc(C)cc1"),
    "triflation of a phenol": (
        ("Oc1ccccc1", "FC(F)(F)S(=O)(=O)OS(=O)(=O)C(F)(F)F"),
        "FC(F)(F)S(=O)(=O)Oc1ccccc1",
    ),
    "azide substitution": (("BrCc1ccccc1", "[N-]=[N+]=[N-].[Na+]"), "[N-]=[N+]=NCc1ccccc1"),
    "azide substitution with inversion": (
        ("CS(=O)(=O)O[C@@H](C)CC", "[N-]=[N+]=[N-].[Na+]"),
        "[N-]=[N+]=N[C@H](C)CC",
    ),
    "cyanide substitution": (("BrCc1ccccc1", "[C-]#N.[Na+]"), "N#CCc1ccccc1"),
    "Finkelstein reaction": (("ClCc1ccccc1", "[Na+].[I-]"), "ICc1ccccc1"),
    "thioacetate substitution": (("BrCc1ccccc1", "CC(=O)[S-].[K+]"), "CC(=O)SCc1ccccc1"),
    "aryl cyanation": (("Brc1ccc(Cl)cc1", "N#C[Zn]C#N"), "N#Cc1ccc(Cl)cc1"),
    "Miyaura borylation": (
        ("Brc1ccccc1", "CC1(C)OB(OC1(C)C)B1OC(C)(C)C(C)(C)O1"),
        "CC1(C)OB(OC1(C)C)c1ccccc1",
    ),
    "nitrile hydrolysis to an acid": (("N#CCc1ccccc1", "O", "O"), "OC(=O)Cc1ccccc1"),
    "nitrile hydration": (("N#Cc1ccccc1", "OO"), "NC(=O)c1ccccc1"),
    "amide dehydration": (("NC(=O)c1ccccc1",), "N#Cc1ccccc1"),
    "Curtius rearrangement": (
        ("OC(=O)c1ccccc1", "[N-]=[N+]=NP(=O)(Oc1ccccc1)Oc1ccccc1", "CC(C)(C)O"),
        "CC(C)(C)OC(=O)Nc1ccccc1",
    ),
    "Sandmeyer bromination": (("Nc1ccc(Cl)cc1", "[Cu]Br"), "Brc1ccc(Cl)cc1"),
    "Sandmeyer chlorination": (("Nc1ccc(F)cc1", "[Cu]Cl"), "Clc1ccc(F)cc1"),
    "diazotisation and iodination": (("Nc1ccc(Cl)cc1", "[K+].[I-]"), "Ic1ccc(Cl)cc1"),
    "diazotisation and hydrolysis": (("Nc1ccc(Cl)cc1", "O"), "Oc1ccc(Cl)cc1"),
    "oxime formation": (("O=Cc1ccccc1", "NO.Cl"), "O/N=C/c1ccccc1"),
    "amidoxime formation": (("N#Cc1ccccc1", "NO.Cl"), "NC(=NO)c1ccccc1"),
    "imine formation": (("O=Cc1ccccc1", "NCC"), "CC/N=C/c1ccccc1"),
    "thionation": (
        ("NC(=O)c1ccccc1", "COc1ccc(cc1)P1(=S)SP(=S)(S1)c1ccc(OC)cc1"),
        "NC(=S)c1ccccc1",
    ),
    "isothiocyanate formation": (("Nc1ccccc1", "ClC(Cl)=S"), "S=C=Nc1ccccc1"),
    "isocyanate formation": (("Nc1ccccc1", "O=C(OC(Cl)(Cl)Cl)OC(Cl)(Cl)Cl"), "O=C=Nc1ccccc1"),
    "deoxychlorination of a hydroxyheteroarene": (("Oc1ccccn1", "O=P(Cl)(Cl)Cl"), "Clc1ccccn1"),
    "arylhydrazine formation": (("Nc1ccc(F)cc1", "[Na+].[O-]N=O"), "NNc1ccc(F)cc1"),
    "arene bromination": (("COc1ccccc1C", "O=C1CCC(=O)N1Br"), "COc1ccc(Br)cc1C"),
    "arene chlorination": (("Nc1ccccc1C(=O)OC", "O=C1CCC(=O)N1Cl"), "Nc1ccc(Cl)cc1C(=O)OC"),
    "arene iodination": (("COc1ccccc1", "O=C1CCC(=O)N1I"), "COc1ccc(I)cc1"),
    "nitration": (("CC(=O)Nc1ccccc1", "O[N+](=O)[O-]"), "CC(=O)Nc1ccc(cc1)[N+](=O)[O-]"),
    "chlorosulfonylation": (("CC(=O)Nc1ccccc1", "OS(=O)(=O)Cl"), "CC(=O)Nc1ccc(cc1)S(=O)(=O)Cl"),
    "Vilsmeier formylation": (("CN(C)c1ccccc1", "CN(C)C=O"), "CN(C)c1ccc(C=O)cc1"),
    "ketone alpha-bromination": (("CC(=O)c1ccccc1", "BrBr"), "O=C(CBr)c1ccccc1"),
    "Wohl-Ziegler bromination": (("Cc1ccc(cc1)C#N", "O=C1CCC(=O)N1Br"), "BrCc1ccc(cc1)C#N"),
    "hydroboration and oxidation": (("C=CCc1ccccc1", "OO"), "OCCCc1ccccc1"),
}
TEMPLATES = {template.name: template for template in load_templates()}

# reactants that must not react, each with the reason
FORBIDDEN = [
    ("amide coupling", ("NCc1ccc(cc1)C(=O)O", "C1CCNCC1"), "the acid would couple to itself"),
    ("Suzuki coupling", ("Brc1cnc(F)c(Br)c1", "OB(O)c1ccccc1"), "two unlike bromides"),
    ("nitro hydrogenation", ("C=Cc1ccc(cc1)[N+](=O)[O-]",), "the alkene would be hydrogenated"),
    ("ketone reduction", ("O=Cc1ccc(C(C)=O)cc1",), "the aldehyde is reduced first"),
    ("ester reduction", ("COC(=O)c1ccc(C#N)cc1",), "the nitrile would be reduced too"),
    ("Boc deprotection", ("CC(C)(C)OC(=O)NCC(=O)OC(C)(C)C",), "the ester would be cleaved too"),
    ("methyl or ethyl ester hydrolysis", ("COC(=O)CCC(=O)OCC",), "two unlike esters"),
    ("Grignard addition to an aldehyde", ("O=Cc1ccc(O)cc1", "C[Mg]Br"), "the phenol is acidic"),
    ("SNAr amination", ("Clc1cccc(C)c1", "C1CCNCC1"), "the chloride is not activated"),
    ("Baeyer-Villiger oxidation", ("CC1CCCCC1=O", MCPBA), "either carbon could migrate"),
    ("arene bromination", ("Cc1ccccc1", "O=C1CCC(=O)N1Br"), "no donor directs the bromide"),
]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_each_template_gives_the_product_written_by_hand(template: ReactionTemplate):
    reactants, product = HAND_WRITTEN[template.name]
    outcome = template.react([parse_block(smiles) for smiles in reactants])
    assert outcome is not None
    assert outcome.product == Chem.CanonSmiles(product)


@pytest.mark.parametrize(("name", "reactants", "reason"), FORBIDDEN)
def test_competing_groups_forbid_a_reaction(name: str, reactants: tuple[str, ...], reason: str):
    assert TEMPLATES[name].react([parse_block(smiles) for smiles in reactants]) is None, reason


def test_equivalent_positions_react_once_where_the_template_says_so():
    reactants = [parse_block("Nc1ccc(F)cc1"), parse_block("O=C1CCC(=O)N1Cl")]
    outcome = TEMPLATES["arene chlorination"].react(reactants)
    assert outcome is not None
    assert outcome.product == Chem.CanonSmiles("Nc1ccc(F)cc1Cl")


def test_there_are_many_templates_in_all_ten_classes():
    assert len(TEMPLATES) >= 60
    assert HAND_WRITTEN.keys() == TEMPLATES.keys()
    assert {template.reaction_class for template in TEMPLATES.values()} == set(REACTION_CLASSES)
    assert len(REACTION_CLASSES) == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditions": {"watre": 1}}, "names the molecule 'watre'"),
        ({"exclude": ["alcool"]}, "names the pattern 'alcool'"),
        ({"class": "magic"}, "names the class 'magic'"),
    ],
)
def test_a_template_is_one_yaml_entry_whose_names_are_checked(change: dict, message: str):
    entry = {
        "name": "dehydration",
        "class": "reduction",
        "weight": 1,
        "smarts": "[CX4:1]([OH])[CX4;!H0:2]>>[C:1]=[C:2]",
        "slots": [{"groups": "alcohol"}],
        "exclude": ["acid"],
        "conditions": {"water": 1},
    }
    specification = {
        "classes": {"reduction": 1},
        "molecules": {"water": "O"},
        "patterns": {"acid": "[CX3](=O)[OX2H]"},
        "families": {},
    }
    (template,) = read_templates({**specification, "templates": [entry]})
    outcome = template.react([parse_block("OC1CCCC1")])
    assert outcome is None  # two neighbours could lose the hydrogen
    outcome = template.react([parse_block("OCC1CCCC1")])
    assert outcome is not None
    assert outcome.product == "C=C1CCCC1"
    with pytest.raises(DataError, match=message):
        read_templates({**specification, "templates": [{**entry, **change}]})
