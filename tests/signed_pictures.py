"""Two small pictures that c2pa-python 0.38.1 has signed, with the assertion c2pa.training-mining; packed.

They say `notAllowed` of c2pa.ai_generative_training, `allowed` of c2pa.data_mining. The certificates were made for
them and are nobody's.
"""

import base64
import zlib

_JPEG = (
    "c-"
    "rlhc~}!?9>?FA$w5L;0;r%|5kx>qCI?Ai7e%lLXzQx=h+E1IlSwjZ4wy_JcrBoHSKHO~Kv#V%g5uSdu2<D<?TV;Xx7NpFtDsxOtB"
    "R~zU8$?J*_k9Dwz}Q!v;XaU^5mJk@BEJU`}_Ugc+Yt+fzZOdf;<3006@$KcyB3#3x5Gi0lNlD$m+J2Fu!A&rx90`Vn7N)s{q&v^l"
    "Qox-"
    "v$8a`GD0Jzm@%2D>voHWGyoZqJ+??HTpCiO6b!xIxUu#K`3=;T9q2tYxEkEQkTv|fqxYUm*NkHxqgsTj=5X}MUzg4i?IXE0f$jOh"
    "Y}~%+acWVfcvcF<to-"
    "85?8q_?{8e#Z$tC4*z%1bVYO8$QOv%Fb*?uDjH??={$Dm<2%I7?nlP3bNi#`fwn<Jmg%ht<mJ*&U3r&}1DinCRoGhhrxsx(097Kf"
    "+cNz(oB4F?G+0%@D_f9TWO1mk7$@^|VK;DZ5&=f{GNQXJi?tAp8fJ%1WC_FQ(Vfr}9iGs1kT4uk<uYz#U6iK)mJcIldAd8tTg2HI"
    "BoG9)NSC6}0gw^4sN7-"
    "!73c^_Gvo&HgR&0N2V8;A!ncyvfqh`POs20p+@rCF)<gB+pnjgJcKWlGNYoGUS*UV$~XR^MHR>FhZ+%A8$2^Wn~bcD%9ILx#qN*Q"
    "8wV0Oa6CN#y{F$Za4EO5+bHn}XADqU-26HSY^c4RfrMG{kH4yv^tb6BKNrEAVAr+MEvW!f~ha`NI>yc9DQfTzH}3`iL2pD*0@!}-"
    "E(7-"
    "{zp3p|`X=_V`bV2<a&iGtCd;U0UboFt8zT9aOjrQ^CZ4UVhRG=xsaOf;@f(<_aHmYH?6QLm+avAS#Tq>4$0$+_Mq4WrHF1jVYylo"
    "ia-"
    "$Z@BGX4;0iX^WgaM=|9xq4Er+Tur)2vjbzt#q+X@u$dBkRmoDYR*Ii=!+b9Co^VuPtc#yssp<yYP1!stz4CnT(kY(pbD$BC3$~K8"
    "@7d9iyJ(Ad2VOE|f8*+H%RThz)ZA-"
    "`esi45jL{Z?dL~zmKUeCH<$8L51IaXBXy#r12u+?~`dxkamiFpXxt|W#4{Prj0mT$vnK$Q@Kd$1(;(qU11%e;T`u&)-"
    "W9Byfto;3Tf-~p7JMzxz;^=o9Gd4|ay%(1MWsb#&XVN5XBQQ^|c?4kC$-rnO2S)2Te_cJ5XUvAxv$J(-"
    "o&gDKfRZ9*H3n!cS_7?Oz9ZKmFa*OeauXE`f>P(_f1brdU^Ge@jEV%vWF8`caZD*jgV=>w0?}yffDn~dsZ{AzDh-"
    ";RF`ZfJm}N#_i4IbRpuv7u9&>WjGtLGyTp;vifuTS;1QH@SfOl55YQA90^dd`b?43*Tw^b6W_=0A@+kYz>Arf}QP8s*$nh<;NZP}"
    "ltvJ-6$3CBD4J-ogyKIOP6=7@wU+_B@U^={OKN|;13;Sl8I!6-"
    "ocu&ci8ijgF&Vp22fAv_7IbeI6*^Mwcxjbk?xc#&xTs)*)0g1;<^m;s%)=Hw;4)%HhsYUfHchBfHJ>(7f=^x0#Hmvm+|zCP+i!!q"
    "@{j-"
    "mt0dRGm}2k1+1Jlx)bU3hprH_5d0gYb(hKh#pYw=SuAQybdek^jzu+hMQ_tZ?6%+A`zUO$CR|moGXx$98^_P`4?&>DGolhJ(kxJ-"
    "F8ZkxXw0<}2>*&yD|8fBuc@i@W2M)VbGOcv!S|{CNA^wFj_j-hx|(+t${(qU{}LU&A2sYSBem@Wjs#xv&0x&Z7qJt+%Xd<(l_iR;"
    "Gv66^zUNczq6<jrQ&74j)CB$FmKB1iecA+)nf^bpb&0m_k13P^@el@kV{|s+AkN%JzM^@MuV6&aMw~C#HuE{w#lY8)MR0vFq`p@@"
    "8R?+I?+)YxpN|h0%LvuMi)8MV4-"
    "sU7fVAp8exCB<lbN2L}fS2L}fS2L}fS2L}fS2L}fS2L}fS2L}fS2L}fS2L}fS2gm;lUDL8#TFi!vH_se}7KPS=^8>S!bk3&BbjN7"
    "%c0>KhYQ=-4hB>t#@4T{a^Yw40UP`InBlM0-JnTsscr+(tztwc%koP>u1wjIVP{0oo3WXw3kXRBCA_)$bM1_U-jffc-"
    "7aKD$Iyyd4J~V#t@Pz2-"
    "WL?T|RH@Nu;)Z5q=~X|Mt2HV%2qY4TB*Bu%kdR1~ELx`e$$0kzX%Gknp$Ie>z)}d2Lf(TQ4giP``RG;+!3d8p5C)0F!HmJKPyj;+"
    "0`m|)pT}d~&Su^No|GRZQ;rgZPr!tO%OX_OOX`CXa<(=1n|ShWqPm2t5sCW`h>RLIBxz`JN~$JZtJ7y>=8k?TZ%lqc;iOk5PnkN+"
    "Fda7%CbNaKx@dQKg{N}H+<9-#|IKd~EL^&5dF_goe^|A;Vf}{2jhi-a*}8ql&Rrkw-m~{l2U-"
    "puI{fL8qsLC2KJ(Wv&Yo*+YrlNu>b2`%-"
    "MHED^}YN5c+mCD!+$<vbwL1ux_PcHDWePK@erPn)dj&7tbvrrmnj8dqb3NkvhcyG>Y#|6CH32yMG5MOcl(u4C&m2}HSI&bW~KR*{"
    "b#~z{wrlY!k+4C0}=#cnukciNRXFZ8DCR*tM2vhmUkU!5@@g9Klk{_%+m%#&6d<xM2US`z2L#b#Y=SXoJoscs~dm+NiyPX{TESU="
    "K2"
)
_PNG = (
    "c-"
    "rlhdsGuw8o(zHAmO2j&<Y|*@Ufr}CIP~uN+F;EDk{DR8gZCRlEEZ|WCB5;0xDZAas;VVM3C^XD#EH&)QT?J#adC^T44oNN{ga^aJ"
    "GtAsj`!Yh;7}TJ!k*h`JFSlx!-(``#tXLToJX{#&Vh^001@-"
    ";bGDE%FsVFGXA?KU&;dj4he?%G5R$@Bag?$&iE>Vxk?CN0*p)mI12b5NTL`7004HFv=$q+<Zo+fREj{oW}u%RjPQ8=zMf(@0P*w@"
    "#dAC%#Lv%D?CsCxK|C((4eH&IH<{eI8{I+b-vnhtYBi$5&_snA*8>_&1|bH6_(au216!j3Y|v&WbM*%HFjp-"
    "VPJQv<`IgSfU#1;&|B${|jLWrp<8p~fIZG!t{*xJ8z$yg75K)o{m7o|TTa~C$!N}@VC8Av*#V}={mlvGOMwJ-MPE<*}6iA91P81<"
    "(FO$C7ppW7DuO*?764R&<Jnk`50*l_A0H%Ua1*(vE$_>kS7C{c~%+VFc?j0#FauC#Qqv3L)F$+Y2sZd0%(>fX}fX3k>L<M1JG7|U"
    "NT{)~#BMFK`EJP+tOhH6SgRTg|pg8#(1qoz)i#xw!I%@E{k1B=KQiF@}L$bbhh*?q8Rg!5nC3<M!!VX-Xrnjw1K(w$-"
    "qc&C>QDcw_vuBBAh(dx%9XK{31tdol`iNo|Iix_vxC#u(Bx1D`;`;JL`baS@tpY1x?JXU=>H49(N9lcsmLfkfi(<a3MQU?WJ(^Gt"
    "SP6;3fpN&|O)31zIA5^rxAO(dAXIJ~7P5!_q=yqw1%5mQj6{TKJ+yKq8%0Hdeu$V8AJ6smghV2qr;i^3dj|M(c%C8<@s9V0MF`K^"
    "7c=;JUHe2;9I6l}Rv0paFiA3^(q|8GQt+W+!-)zEZyTh+q-^~;;#6ue$PVDJy-"
    "_tPQ9$}}(JoUXGVx49Q5JaVwY>hT8)h(JkGoTu#yalJmCDk=8kJ1zJ|WJpE}hrgeKz%B1Kn-RX>UwRzJ0|{O`1|VvvStX=sKXdwY"
    "a86=<_s6ErBp8qIxS<wlUV+KZ^C{{+fbO^VY9EC3<+<JWi1I`AAS<>ak|OI}I74Gubbc<}uEzjefoU$nUSNmB~51G8@_5)a6>_JM"
    "X*~TN3_V`r(a>?(U)I$2ioN&$oOm6~TcRipda2J7F9FVBX(Nqvd8At>5`{jaMF5n^&%%t#7vrC{uK#Irgk<0qG!^P1=t?A0DERNn"
    "|pa@(8pvr_Id?zqx=)A%hMaE0AtZSwp2*lVONs3DWc%OKTDaI#0FX@;Dr>KbPwR`Ub?}TR(goVA_I?92?NeXiCLTE`G~c0NR>c7^"
    "09#rf?LJ1%(e#+gST^%#XwhrJp(veeW{JwN9|?^qHFbPhk+<;+gZ>rNj3vpy6MVE-_gx?Yfya1{$6}IOO7fL+tdmwJP$|son|=s0"
    "OX^Ku)$K(ioKt0^lV5ZnA!dr(}_dhsO7_sn+^T=b4kt%q%EWaE4wulWGsXpJ~@PWPUx*ZVRa+fxl?ZC+&aH%pE8Ko%9NmsP9wl@|"
    "s7j$I!$DRU1QEbbGxI^$9QUome$WH~=mryO6uDK%LKTgw7Ec)Y*0wo#CnKkLG9Y;4!-"
    "U!b^7!P9d{^eVU<lSGH`ejcAhm(4`nyGH`Kb+2P>Y{>rn0ufF-"
    "^t8)SpiuVS=AIsPMdHBET&wns|cX!6D%QOc%p9{||UoPKv@G_J|-"
    "Ptb~Ot`y^ezLD^14Kf5gk3DF=$n7j^gRCPg>J0>lLT+hftqC;Uq)HP(%=gfd@vZCJl-8Mkb*C7H;80Dq13<IiHW6-"
    "0Ki3fAz$`+6}1O#E|1$^RQ)We;oh!mHun6}b)nI|4A<uH`gUApAm#Mvi{wTNp||FK&RyG!Ga{#-"
    "&Ddwz6vgtDuzFTCl<U9S0yjT^fPjF2fPjF2fPjF2fPjF2fPjF2fPjF2fPjF2fPjF2fPjF2fPmotg=aCrj`@wLv!<d813TZFePH)J"
    "_vcfRPcgTB%n#{F-(lNcn%(hUR{g4}n**BGmfaaVpA`~Wuy&<V8b7%E?p2@Znkja{s>iq^^8ARfkk#6f*#!-"
    "2Ye2gl*RIj&`}Z)#jh}xSRIz+>5~{RWvch#KKlrbm+2VDhz4LgfX=$q>nfwbQf_?IiXQQKOfd?O?mR9eKo?G?w-"
    "k%x%z4aY70lh40q`PYlqZ*BETeJB_K-Y+n)@V-w!Zx%G|NOH9DKq+f?J<UHi<%!!>rVdCX@7115B}`yCx=Eot`ClU(EOxi)-"
    "|7HqZik$8GiC4lon9d@+1B_`(s3q_v6Ec89Cis8u-"
    "Q4t?d;D)Xoc;tnCcGyVKPZ9!q*VPkQ8@@XvFA&klV6HwUDAmUl$w#;0X;jlF!CbhD~(rJc<cu*Dk)rgf{%(OAIu_wSoAM>6VLtI@"
    "ua(O0jMZ)T*Y*Yuy4JG$tize)3|>M3!A&&a)-D$!{RnXY01FApx56;Tkjl3Muf$Vkd&xv=f#x$E~`tHQ#D8d|3T7e-"
    "P`S4B=1*YpRrJh^&xG2DF81K4zY_I8m#e7ve~%TR?|L3GsZFXWDe2pw3n#&=mL4K04~=n<XSe_ou+<nPk`<BYsi61HKVSwJsZTpD"
    "$l!KZbn2i41$xMyT!JRaTXen)e#^~Ej!yvDS$S=atG9nL-"
    "d?4wIotVvHZx<YBO{r$sz4ZS7XMqYJY+M0Vp=k`TwSy|b3#_{1K|DgtT?a{eSpS8x)vLcW8=P{G)%>k`edn<PN?aD$+Rw3eERarO"
    "<-ldZkn{Q_b+ipCO<#w0MbnTrVQBYS`SB<uxF#~!_7&>_e<MP&g+x0!llMgxik&IXv6;{jNl>KkxJSz("
)


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b85decode(text))


JPEG, PNG = unpacked(_JPEG), unpacked(_PNG)
